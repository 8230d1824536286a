"""EvoTok's losses of pixels, codes and semantics (spec section 2.1), and the weights of these and the perceptual part.

The perceptual part itself is in perceptual.py, the adversarial one in adversarial.py.

Every loss is a sum and a count, so that micro-batches, short batches and ranks add up to exactly the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mmzoo.errors import InputError, suggestion
from mmzoo.ops.exact_float32 import exact_float32
from mmzoo.training.loss_sums import LossSum, WeightedLoss
from tokenizers_visual.evotok.configuration import EvoTokConfig


def squared_error(prediction: Tensor, target: Tensor) -> LossSum:
    """Squared differences; any two equal shapes, one term an element."""
    return _elementwise(prediction, target, torch.square)


def absolute_error(prediction: Tensor, target: Tensor) -> LossSum:
    """Absolute differences; any two equal shapes, one term an element."""
    return _elementwise(prediction, target, torch.abs)


def cosine_distance(prediction: Tensor, target: Tensor, folds: int = 1) -> LossSum:
    """1 - cosine of features (B, N, C), C cut into `folds` equal chunks; one term a token and chunk.

    `folds=1` is the paper's semantic loss, `folds=4` the code's additional "fold" term.
    """
    _check_shapes(prediction, target)
    width = prediction.shape[-1]
    if width % folds:
        raise InputError(f"losses: {width} semantic channels cannot be cut into {folds} equal folds")
    with exact_float32(prediction.device.type):
        chunks = [x.float().unflatten(-1, (folds, width // folds)) for x in (prediction, target)]
        terms = 1 - cosine_similarity(*chunks, dim=-1)
        return LossSum(terms.sum(), terms.numel())


RECONSTRUCTION_LOSSES = {"mse": squared_error, "l1": absolute_error}
SEMANTIC_LOSSES = ("cosine", "fold", "mse")
PERCEPTUAL_LOSSES = ("vgg", "none")


@dataclass(frozen=True)
class GeneratorLossSettings:
    """Which terms are added, and with which weights. The defaults are the released recipe, but for the perceptual loss:
    "vgg" needs weights that come with no package, so it is asked for by name, as a teacher is.

    perceptual_weights_file: torchvision's VGG16 weights (.pth or .safetensors); None = torch's cache.
    """

    reconstruction: str = "mse"
    reconstruction_weight: float = 1.0
    commitment_weight: float = 1.0
    semantic: tuple[str, ...] = ("cosine", "fold")
    semantic_weight: float = 1.0
    folds: int = 4
    perceptual: Literal["vgg", "none"] = "none"
    perceptual_weight: float = 1.0
    perceptual_weights_file: str | None = None

    def __post_init__(self) -> None:
        if self.reconstruction not in RECONSTRUCTION_LOSSES:
            hint = suggestion(self.reconstruction, RECONSTRUCTION_LOSSES)
            raise InputError(f"losses: unknown reconstruction loss {self.reconstruction!r}.{hint}")
        for name in self.semantic:
            if name not in SEMANTIC_LOSSES:
                raise InputError(f"losses: unknown semantic loss {name!r}.{suggestion(name, SEMANTIC_LOSSES)}")
        if self.perceptual not in PERCEPTUAL_LOSSES:
            hint = suggestion(self.perceptual, PERCEPTUAL_LOSSES)
            raise InputError(f"losses: unknown perceptual loss {self.perceptual!r}.{hint}")
        if self.folds < 1:
            raise InputError(f"losses: folds is {self.folds}; it must be at least 1")

    def weight_of(self, part: str) -> float:
        """The weight of "perceptual" or of one of the parts that `generator_loss` names."""
        weights = {
            "reconstruction": self.reconstruction_weight,
            "commitment": self.commitment_weight,
            "perceptual": self.perceptual_weight,
        }
        return weights.get(part, self.semantic_weight)


def part_counts(
    settings: GeneratorLossSettings, config: EvoTokConfig, images: Tensor, *, semantics: bool
) -> dict[str, int]:
    """How many terms the parts of `generator_loss` have for `images` (B, 3, H, W), before anything is computed."""
    tokens = len(images) * (images.shape[-2] // config.patch_size) * (images.shape[-1] // config.patch_size)
    counts = {
        "reconstruction": images.numel(),
        "commitment": tokens * config.latent_dim * config.levels,
    }
    terms = {"cosine": tokens, "fold": tokens * settings.folds, "mse": tokens * config.semantic_out_width}
    return {**counts, **({f"semantic_{name}": terms[name] for name in settings.semantic} if semantics else {})}


def generator_loss(
    settings: GeneratorLossSettings,
    images: Tensor,
    reconstruction: Tensor,
    commitment: LossSum,
    semantics: Tensor | None = None,
    teacher_features: Tensor | None = None,
) -> WeightedLoss:
    """The loss of a batch: `images`, `reconstruction` (B, 3, H, W), `semantics`, `teacher_features` (B, N, C).

    Parts: "reconstruction", "commitment", "semantic_cosine", "semantic_fold", "semantic_mse"; without teacher features
    there are no semantic ones. `images` are the unclamped input (the clamp acts on encoder and teacher only).
    """
    parts = {
        "reconstruction": RECONSTRUCTION_LOSSES[settings.reconstruction](reconstruction, images),
        "commitment": commitment,
    }
    if semantics is not None and teacher_features is not None:
        for name in settings.semantic:
            parts[f"semantic_{name}"] = _semantic(name, semantics, teacher_features, settings.folds)
    return WeightedLoss(parts, {name: settings.weight_of(name) for name in parts})


def _semantic(name: str, semantics: Tensor, teacher_features: Tensor, folds: int) -> LossSum:
    if name == "mse":
        return squared_error(semantics, teacher_features)
    return cosine_distance(semantics, teacher_features, folds if name == "fold" else 1)


def _elementwise(prediction: Tensor, target: Tensor, term: Callable[[Tensor], Tensor]) -> LossSum:
    _check_shapes(prediction, target)
    return LossSum(term(prediction.float() - target.float()).sum(), prediction.numel())


def _check_shapes(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise InputError(
            f"losses: prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape"
        )

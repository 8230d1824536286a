"""EvoTok's generator losses without the perceptual and the adversarial part (spec section 2.1).

Every loss is a sum and a count, so that micro-batches, short batches and ranks add up to exactly the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mmzoo.errors import InputError, suggestion
from mmzoo.ops.exact_float32 import exact_float32


@dataclass(frozen=True)
class LossSum:
    """A loss as the sum of `count` terms: `sum` a float32 scalar, `count` how many terms it has."""

    sum: Tensor
    count: int

    @property
    def mean(self) -> Tensor:
        """The loss proper; 0 (with a gradient of 0) over no terms."""
        return self.sum / max(self.count, 1)

    def __add__(self, other: LossSum) -> LossSum:
        return LossSum(self.sum + other.sum, self.count + other.count)


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


@dataclass(frozen=True)
class GeneratorLossSettings:
    """Which terms are added, and with which weights. The defaults are the released recipe."""

    reconstruction: str = "mse"
    reconstruction_weight: float = 1.0
    commitment_weight: float = 1.0
    semantic: tuple[str, ...] = ("cosine", "fold")
    semantic_weight: float = 1.0
    folds: int = 4

    def __post_init__(self) -> None:
        if self.reconstruction not in RECONSTRUCTION_LOSSES:
            hint = suggestion(self.reconstruction, RECONSTRUCTION_LOSSES)
            raise InputError(f"losses: unknown reconstruction loss {self.reconstruction!r}.{hint}")
        for name in self.semantic:
            if name not in SEMANTIC_LOSSES:
                raise InputError(f"losses: unknown semantic loss {name!r}.{suggestion(name, SEMANTIC_LOSSES)}")
        if self.folds < 1:
            raise InputError(f"losses: folds is {self.folds}; it must be at least 1")

    def weight_of(self, part: str) -> float:
        """The weight of one of the parts that `generator_loss` names."""
        weights = {"reconstruction": self.reconstruction_weight, "commitment": self.commitment_weight}
        return weights.get(part, self.semantic_weight)


@dataclass(frozen=True)
class GeneratorLoss:
    """`parts`: "reconstruction", "commitment", "semantic_cosine", "semantic_fold", "semantic_mse"; `total` a scalar."""

    settings: GeneratorLossSettings
    parts: Mapping[str, LossSum]

    @property
    def total(self) -> Tensor:
        """The weighted sum of the parts' means."""
        return torch.stack([self.settings.weight_of(name) * part.mean for name, part in self.parts.items()]).sum()

    def __add__(self, other: GeneratorLoss) -> GeneratorLoss:
        if self.settings != other.settings or self.parts.keys() != other.parts.keys():
            raise ValueError(f"losses with parts {list(self.parts)} and {list(other.parts)} do not add up")
        return GeneratorLoss(self.settings, {name: part + other.parts[name] for name, part in self.parts.items()})


def generator_loss(
    settings: GeneratorLossSettings,
    images: Tensor,
    reconstruction: Tensor,
    commitment: LossSum,
    semantics: Tensor | None = None,
    teacher_features: Tensor | None = None,
) -> GeneratorLoss:
    """The loss of a batch: `images`, `reconstruction` (B, 3, H, W), `semantics`, `teacher_features` (B, N, C).

    `images` are the unclamped input (the clamp acts on encoder and teacher only). Without teacher features there are no
    semantic parts.
    """
    parts = {
        "reconstruction": RECONSTRUCTION_LOSSES[settings.reconstruction](reconstruction, images),
        "commitment": commitment,
    }
    if semantics is not None and teacher_features is not None:
        for name in settings.semantic:
            parts[f"semantic_{name}"] = _semantic(name, semantics, teacher_features, settings.folds)
    return GeneratorLoss(settings, parts)


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

"""The adversarial game: its losses, when it begins, and the network that the tokenizer plays against (spec 2.1, 2.2).

Losses are functions of the discriminator's logits, high = real. The authors' code passes the arguments of its
non-saturating losses the wrong way round (logits as labels, labels as logits); here they are the right way round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from mmzoo.errors import InputError, suggestion
from mmzoo.training.loss_sums import LossSum
from mmzoo.training.optimizers import OptimizerSettings
from tokenizers_visual.evotok.discriminator import DiscriminatorSettings, PatchDiscriminator, statistics_kept

#: What the generator minimises, a logit of its images at a time. "vanilla" is log(1 - p), which saturates where the
#: discriminator is sure; "non_saturating" is -log p, with p = sigmoid(logit).
GENERATOR_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "hinge": lambda logits: -logits,
    "vanilla": lambda logits: -softplus(logits),
    "non_saturating": lambda logits: softplus(-logits),
}
#: What the discriminator minimises, a logit at a time: of real images, and of the generator's. Cross-entropy is the
#: discriminator's side of both the vanilla and the non-saturating game.
DISCRIMINATOR_LOSSES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "hinge": (lambda logits: relu(1 - logits), lambda logits: relu(1 + logits)),
    "vanilla": (lambda logits: softplus(-logits), softplus),
    "non_saturating": (lambda logits: softplus(-logits), softplus),
}
Game = Literal["hinge", "vanilla", "non_saturating"]

#: The adaptive weight is the ratio of two gradients' norms, up to this; the second is kept above the epsilon.
LARGEST_RATIO, RATIO_EPS = 1e4, 1e-4


@dataclass(frozen=True)
class AdversarialSettings:
    """The defaults are the released recipe.

    generator_loss, discriminator_loss: "hinge", "vanilla" or "non_saturating". weight: of both sides' losses, from
    update number `start` (the first is 1) on; before it the discriminator is not even evaluated. adaptive: the
    generator's side is also scaled so that at the last decoder layer its gradient is as long as that of the pixel
    losses. optimizer: the discriminator's own; None = as the tokenizer's.
    """

    generator_loss: Game = "hinge"
    discriminator_loss: Game = "hinge"
    weight: float = 0.5
    start: int = 20000
    adaptive: bool = False
    discriminator: DiscriminatorSettings = field(default_factory=DiscriminatorSettings)
    optimizer: OptimizerSettings | None = None

    def __post_init__(self) -> None:
        for name, known in (("generator_loss", GENERATOR_LOSSES), ("discriminator_loss", DISCRIMINATOR_LOSSES)):
            if (given := getattr(self, name)) not in known:
                raise InputError(f"adversarial.{name} is {given!r}.{suggestion(given, known)}")
        if self.weight <= 0:
            raise InputError(f"adversarial.weight is {self.weight}. Give a number above 0, or leave out `adversarial`.")
        if self.start < 1:
            raise InputError(f"adversarial.start is {self.start}. Give the number of its first update, 1 or more.")


class Adversary(nn.Module):
    """The discriminator with its losses, each a sum over logits. `updates`: how many it has made, kept in checkpoints.

    Batch statistics: each side's images are normalised by their own batch, in training. Only the discriminator's turn
    moves the running statistics, real images first; they are what validation normalises by.
    """

    updates: Tensor

    def __init__(self, settings: AdversarialSettings) -> None:
        super().__init__()
        self.settings = settings
        self.discriminator = PatchDiscriminator(settings.discriminator)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def count(self, images: Tensor) -> int:
        """How many logits `images` (B, 3, H, W) have."""
        height, width = self.discriminator.grid(images.shape[-2], images.shape[-1])
        return len(images) * height * width

    def generator_part(self, reconstruction: Tensor) -> LossSum:
        """What the generator has to win with `reconstruction` (B, 3, H, W). Leaves the discriminator as it is."""
        with statistics_kept(self.discriminator):
            return _summed(GENERATOR_LOSSES[self.settings.generator_loss], self.discriminator(reconstruction))

    def discriminator_parts(self, images: Tensor, reconstruction: Tensor) -> dict[str, LossSum]:
        """Parts "discriminator_real" and "discriminator_fake" of two batches (B, 3, H, W), in separate passes.

        Nothing flows into `reconstruction`.
        """
        real, fake = DISCRIMINATOR_LOSSES[self.settings.discriminator_loss]
        return {
            "discriminator_real": _summed(real, self.discriminator(images)),
            "discriminator_fake": _summed(fake, self.discriminator(reconstruction.detach())),
        }

    def discriminator_weights(self) -> dict[str, float]:
        """Each half of the discriminator's loss counts half."""
        return dict.fromkeys(("discriminator_real", "discriminator_fake"), self.settings.weight / 2)


def adaptive_weight(pixels: Tensor, adversarial: Tensor, last_weight: Tensor) -> Tensor:
    """How much longer the gradient of `pixels` is than that of `adversarial` (scalar losses) at `last_weight`.

    At most 1e4, detached. Source: Esser et al., VQGAN, arXiv 2012.09841, equation 7.
    """
    with torch.autocast(last_weight.device.type, enabled=False):  # as in any backward pass of a training
        lengths = [
            torch.autograd.grad(loss, last_weight, retain_graph=True)[0].float().norm()
            for loss in (pixels, adversarial)
        ]
    return (lengths[0] / (lengths[1] + RATIO_EPS)).clamp(max=LARGEST_RATIO).detach()


def _summed(loss: Callable[[Tensor], Tensor], logits: Tensor) -> LossSum:
    terms = loss(logits.float())
    return LossSum(terms.sum(), terms.numel())

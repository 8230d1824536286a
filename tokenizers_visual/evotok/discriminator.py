"""The discriminator: pix2pix's patch classifier (Isola et al., arXiv 1611.07004; spec section 2.2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mmzoo.errors import InputError, suggestion

KERNEL, SLOPE, GROUPS = 4, 0.2, 32
#: Widths grow by two a layer, up to this factor.
WIDEST = 8
INITIAL_STD = 0.02


@dataclass(frozen=True)
class DiscriminatorSettings:
    """channels: of the first layer; layers: how many halve the image. The defaults are the released recipe.

    norm: "batch" as published, or "group", which has no statistics over the batch: only with it is an update that was
    cut into micro-batches or ranks exactly that of the whole batch.
    """

    channels: int = 64
    layers: int = 3
    norm: Literal["batch", "group"] = "batch"

    def __post_init__(self) -> None:
        if self.channels < 1 or self.layers < 1:
            raise InputError(
                f"the discriminator's channels and layers must be at least 1: {self.channels}, {self.layers}"
            )
        if self.norm not in ("batch", "group"):
            raise InputError(f"the discriminator's norm is {self.norm!r}.{suggestion(self.norm, ('batch', 'group'))}")


class PatchDiscriminator(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> one logit a patch (B, 1, h, w), high = real; 256 px -> 30 x 30.

    4x4 convolutions: `layers` with stride 2, two with stride 1. `main` has the authors' names and shapes, so their
    weights load as they are.
    """

    def __init__(self, settings: DiscriminatorSettings) -> None:
        super().__init__()
        self.settings = settings
        widths = [settings.channels * min(2**n, WIDEST) for n in range(settings.layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], KERNEL, 2, 1), nn.LeakyReLU(SLOPE)]
        for number in range(1, settings.layers + 1):
            before, width = widths[number - 1], widths[number]
            stride = 2 if number < settings.layers else 1
            layers += [nn.Conv2d(before, width, KERNEL, stride, 1, bias=False), self._norm(width)]
            layers += [nn.LeakyReLU(SLOPE)]
        self.main = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, KERNEL, 1, 1))
        self.main.apply(_initialise)

    def _norm(self, width: int) -> nn.Module:
        if self.settings.norm == "group":
            return nn.GroupNorm(math.gcd(GROUPS, width), width)
        return nn.BatchNorm2d(width)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, 1, h, w); of no images, none, with gradients of zero (statistics would be NaN)."""
        if len(images) == 0:
            weights = sum(weight.sum() for weight in self.parameters())
            return images.new_zeros(0, 1, *self.grid(*images.shape[-2:])) + 0 * (images.sum() + weights)
        return self.main(images)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """How many logits (h, w) an image of these sizes in px has. InputError when it has none."""
        sizes = [height, width]
        for stride in [2] * self.settings.layers + [1, 1]:
            sizes = [(size + 2 - KERNEL) // stride + 1 for size in sizes]
        if min(sizes) < 1:
            raise InputError(
                f"images of {height} x {width} px are too small for a discriminator of {self.settings.layers} layers. "
                f"Set adversarial.discriminator.layers lower."
            )
        return sizes[0], sizes[1]


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """In training mode: BatchNorm normalises by the batch as ever, and its moving statistics stay as they are."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """pix2pix's starting values: N(0, 0.02) for kernels, N(1, 0.02) for gains, zero shifts of norms."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, INITIAL_STD)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, INITIAL_STD)
        nn.init.zeros_(module.bias)

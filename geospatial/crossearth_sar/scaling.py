"""Raster values to the network's input and back: one place, so that descriptors see what the raster said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

#: Values this near to 0 in 0..1 are 0 that went through float32 and back.
ROUNDING = 1e-6


class Scaling(Protocol):
    """What a configuration and a processor both hold; see CrossEarthSARConfig."""

    @property
    def domain(self) -> str: ...

    @property
    def value_range(self) -> Sequence[float]: ...

    @property
    def image_mean(self) -> Sequence[float]: ...

    @property
    def image_std(self) -> Sequence[float]: ...


def normalized(values: Tensor, valid: Tensor, scaling: Scaling) -> Tensor:
    """Raster values (B, 3, H, W) -> the network's input, 0 (the mean) where `valid` (B, H, W) is false."""
    low, high = scaling.value_range
    image = (values.float() - low) / (high - low)
    scales = zip(image.unbind(1), scaling.image_mean, scaling.image_std, strict=True)
    bands = torch.stack([(band - mean) / std for band, mean, std in scales], 1)
    return torch.where(valid.unsqueeze(1), bands, 0.0)


def restored_image(pixel_values: Tensor, scaling: Scaling) -> Tensor:
    """The network's input (B, 3, H, W) -> the image in 0..1, which is beyond both where raster values were."""
    scales = zip(pixel_values.unbind(1), scaling.image_mean, scaling.image_std, strict=True)
    image = torch.stack([band * std + mean for band, mean, std in scales], 1)
    return image.masked_fill(image.abs() < ROUNDING, 0.0)


def restored_raster(pixel_values: Tensor, scaling: Scaling) -> Tensor:
    """The network's input (B, 3, H, W) -> raster values, exact to rounding, and never past what the domain can hold."""
    low, high = scaling.value_range
    values = restored_image(pixel_values, scaling) * (high - low) + low
    if scaling.domain == "display8":
        return values.clamp(0, 255)
    return values.clamp(min=0) if scaling.domain == "amplitude" else values


def described_values(pixel_values: Tensor, scaling: Scaling, what: str) -> tuple[Tensor, str]:
    """What descriptors are computed from, and its domain: "image", "network" or "raster" (spec section 9)."""
    if what == "raster":
        return restored_raster(pixel_values, scaling), scaling.domain
    # ln(1 + |X|) has no use for the sign, and of a normalised image most values may be negative.
    return (pixel_values.abs() if what == "network" else restored_image(pixel_values, scaling)), "log1p"

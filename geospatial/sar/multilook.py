"""Fewer, calmer pixels: the mean power of blocks. n independent looks become n times as many; correlated ones fewer."""

from __future__ import annotations

import torch
from rasterio import Affine
from torch import Tensor

from geospatial.sar.domains import from_power, to_power
from mmzoo.errors import InputError


def multilook(
    image: Tensor, rows: int, columns: int, domain: str, valid: Tensor | None = None, least_valid: float = 0.5
) -> Tensor:
    """Mean of `rows` x `columns` blocks of `image` (..., H, W), taken in power and given back in `domain`.

    Pixels that are not finite or not `valid` do not count; a block with a smaller share of valid ones than
    `least_valid` is NaN. Rows and columns that fill no block are dropped. InputError when none is left.
    """
    height, width = image.shape[-2] // max(rows, 1), image.shape[-1] // max(columns, 1)
    if rows < 1 or columns < 1 or not height or not width:
        raise InputError(f"blocks of {rows} x {columns} do not fit an image of {image.shape[-2]} x {image.shape[-1]}")
    power = to_power(image, domain)
    usable = torch.isfinite(power) if valid is None else torch.isfinite(power) & valid

    def sums(pixels: Tensor) -> Tensor:
        whole = pixels[..., : height * rows, : width * columns]
        return whole.unflatten(-1, (width, columns)).unflatten(-3, (height, rows)).sum((-1, -3))

    count = sums(usable.to(power.dtype))
    mean = sums(torch.where(usable, power, 0)) / count.clamp(min=1)
    enough = count >= max(1.0, least_valid * rows * columns)
    return from_power(torch.where(enough, mean, torch.nan), domain)


def multilook_transform(transform: Affine, rows: int, columns: int) -> Affine:
    """The geographic transform of the multilooked image: same origin, larger pixels."""
    a, b, c, d, e, f = transform[:6]
    return Affine(a * columns, b * rows, c, d * columns, e * rows, f)

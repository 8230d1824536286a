"""The Frost filter: a mean whose weights fall with distance, the faster the more the window varies."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor
from torch.nn.functional import pad

from geospatial.sar.windows import Moments


def frost(power: Tensor, usable: Tensor, moments: Moments, window: int, damping: float) -> Tensor:
    """Mean of the usable pixels of the window, weighted by exp(-damping Ci^2 distance), distance in pixels."""
    half, (height, width) = window // 2, power.shape[-2:]
    border = (half, half, half, half)
    values, counts = pad(power * usable, border), pad(usable.to(power.dtype), border)
    variation = moments.variation()
    total, weights = torch.zeros_like(power), torch.zeros_like(power)
    for distance, offsets in _rings(half).items():
        weight = torch.exp(-damping * distance * variation)
        for row, column in offsets:
            place = (..., slice(half + row, half + row + height), slice(half + column, half + column + width))
            total.addcmul_(weight, values[place])
            weights.addcmul_(weight, counts[place])
    return total / weights.clamp(min=torch.finfo(power.dtype).tiny)


def _rings(half: int) -> dict[float, list[tuple[int, int]]]:
    """Offsets (row, column) of the window by their distance to its middle: each distance needs one exponential."""
    rings: dict[float, list[tuple[int, int]]] = defaultdict(list)
    for row in range(-half, half + 1):
        for column in range(-half, half + 1):
            rings[math.hypot(row, column)].append((row, column))
    return rings

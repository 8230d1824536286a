"""The histogram of gradient directions of an image, by the 3x3 Sobel operator.

Differences are taken before sums, so along stripes the other component is exactly zero and no rounding noise chooses
the bin; bins are centred on the axes for the same reason (spec section 5.4).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sobel(values: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients along columns and along rows, (B, H - 2, W - 2) each, of `values` (B, H, W); none below 3x3."""
    if min(values.shape[1:]) < 3:
        nothing = values.new_zeros(values.shape[0], 0, 0)
        return nothing, nothing
    across = values[:, :, 2:] - values[:, :, :-2]
    down = values[:, 2:] - values[:, :-2]
    gx = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    gy = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return gx, gy


def surrounded(usable: Tensor) -> Tensor:
    """Pixels (B, H - 2, W - 2) whose whole 3x3 neighbourhood is usable, as `sobel` lays them out."""
    if min(usable.shape[1:]) < 3:
        return usable.new_zeros(usable.shape[0], 0, 0)
    rows = usable[:, :-2] & usable[:, 1:-1] & usable[:, 2:]
    return rows[:, :, :-2] & rows[:, :, 1:-1] & rows[:, :, 2:]


def direction_bins(gx: Tensor, gy: Tensor, bins: int, period: str) -> Tensor:
    """Index 0..bins-1 (same shape, int64) of the angle of (gx, gy); bin 0 is centred on the direction of columns."""
    scale = bins / (2 * math.pi if period == "direction" else math.pi)
    index = torch.atan2(gy, gx).mul_(scale).add_(0.5).floor_()  # from -bins to bins at most
    index = torch.where(index < 0, index + bins, index)
    return torch.where(index >= bins, index - bins, index).long()


def counted_gradients(gx: Tensor, gy: Tensor, inside: Tensor, weight: str, tau: float) -> Tensor:
    """Weight of each gradient: 0 unless it is `inside` and above `tau` times the mean magnitude of those inside."""
    magnitude = torch.hypot(gx, gy) * inside
    mean = magnitude.sum((1, 2), keepdim=True) / inside.sum((1, 2), keepdim=True).clamp(min=1)
    counted = magnitude > tau * mean
    return counted.float() if weight == "one" else magnitude * counted


def direction_histogram(values: Tensor, usable: Tensor, bins: int, period: str, weight: str, tau: float) -> Tensor:
    """(B, bins) float32: how much gradient of `values` (B, H, W) points each way, where all neighbours are `usable`."""
    gx, gy = sobel(values)
    weights = counted_gradients(gx, gy, surrounded(usable), weight, tau).flatten(1)
    index = direction_bins(gx, gy, bins, period).flatten(1)
    batch = index.shape[0]
    index += torch.arange(0, batch * bins, bins, device=index.device)[:, None]
    histogram = values.new_zeros(batch * bins)
    return histogram.scatter_add_(0, index.flatten(), weights.flatten()).view(batch, bins)

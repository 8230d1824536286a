"""The refined Lee filter: statistics from the half of the window that lies on the pixel's side of an edge.

Nine 3x3 means, two pixels apart, show which way the window rises most, among four axes; of the two halves across that
axis the one is taken whose neighbouring mean is nearer to the middle one. A half includes the line through the pixel.
Source: Lee, "Refined filtering of image noise using local statistics", 1981.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from geospatial.sar.adaptive_filters import lee_weight
from geospatial.sar.windows import Moments, moving_moments

WINDOW = 7
HALF = WINDOW // 2
STEP = 2
#: (row, column) across the edge; half k looks along AXES[k], half k + 4 against it.
AXES = ((0, 1), (1, 1), (1, 0), (1, -1))
#: A rise must beat the others by this share: sums in another order must not choose another half.
PREFERENCE = 1e-6


def refined_lee(power: Tensor, usable: Tensor, looks: float) -> Tensor:
    """Power (..., H, W) filtered; pixels that are not `usable` do not count."""
    moments = _half_moments(power, usable, _sides(power, usable))
    return moments.mean + lee_weight(moments.variation(), looks) * (power - moments.mean)


def _sides(power: Tensor, usable: Tensor) -> Tensor:
    """Which of the eight halves (0..7) each pixel belongs to, (..., H, W)."""
    means = _grid_of_means(power, usable)
    middle = means[0, 0]
    rises = torch.stack([sum_signed(means, axis) for axis in AXES]).abs()
    preferred = rises * torch.tensor([1 + PREFERENCE * (3 - k) for k in range(4)]).to(rises).view(-1, *[1] * power.ndim)
    axis = preferred.argmax(0, keepdim=True)
    ahead = torch.stack([(means[row, column] - middle).abs() for row, column in AXES])
    behind = torch.stack([(means[-row, -column] - middle).abs() for row, column in AXES])
    nearer_behind = behind.gather(0, axis) < ahead.gather(0, axis) * (1 - PREFERENCE)
    return (axis + 4 * nearer_behind)[0]


def sum_signed(means: dict[tuple[int, int], Tensor], axis: tuple[int, int]) -> Tensor:
    """The three means ahead along `axis` minus the three behind."""
    total = torch.zeros_like(means[0, 0])
    for (row, column), mean in means.items():
        along = row * axis[0] + column * axis[1]
        if along:
            total = total + mean if along > 0 else total - mean
    return total


def _grid_of_means(power: Tensor, usable: Tensor) -> dict[tuple[int, int], Tensor]:
    """3x3 means around the points (-2, 0, 2) x (-2, 0, 2) of each pixel; the window's mean where none is usable."""
    border, (height, width) = (HALF,) * 4, power.shape[-2:]
    small = moving_moments(pad(power, border), 3, pad(usable, border))
    whole = moving_moments(power, WINDOW, usable).mean
    means = {}
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            top, left = HALF + STEP * row, HALF + STEP * column
            place = (..., slice(top, top + height), slice(left, left + width))
            means[row, column] = torch.where(small.count[place] > 0, small.mean[place], whole)
    return means


def _half_moments(power: Tensor, usable: Tensor, sides: Tensor) -> Moments:
    """Moments of the usable pixels in the half that `sides` names; mean first, then deviations from it."""
    border, (height, width) = (HALF,) * 4, power.shape[-2:]
    values, counts = pad(power, border), pad(usable.to(power.dtype), border)
    total, count, squares = (torch.zeros_like(power) for _ in range(3))
    offsets = [(row, column) for row in range(-HALF, HALF + 1) for column in range(-HALF, HALF + 1)]

    def members(row: int, column: int) -> tuple[Tensor, Tensor]:
        place = (..., slice(HALF + row, HALF + row + height), slice(HALF + column, HALF + column + width))
        along = [row * axis[0] + column * axis[1] for axis in AXES]
        inside = torch.tensor([*(a >= 0 for a in along), *(a <= 0 for a in along)], device=power.device)
        return values[place], counts[place] * inside[sides]

    for offset in offsets:
        value, member = members(*offset)
        total += value * member
        count += member
    mean = total / count.clamp(min=1)
    for offset in offsets:
        value, member = members(*offset)
        squares += (value - mean).square() * member
    return Moments(count, mean, squares)

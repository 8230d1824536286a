"""The speckle filters by their definition: one image, pixel by pixel, float64. What the fast ones must equal."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float64]
Mask = NDArray[np.bool_]
Place = tuple[int, int]


def reference(power: Pixels, usable: Mask, method: str, looks: float, window: int = 7, damping: float = 1.0) -> Pixels:
    """`power` (H, W) filtered where it is `usable`, and as it was elsewhere."""
    result = power.copy()
    for row, column in np.ndindex(*power.shape):
        if usable[row, column]:
            result[row, column] = _one(power, usable, (row, column), (method, looks, window, damping))
    return result


def _one(power: Pixels, usable: Mask, place: Place, setting: tuple[str, float, int, float]) -> float:
    method, looks, window, damping = setting
    offsets = [offset for offset in _square(window // 2) if _is_usable(usable, place, offset)]
    if method == "refined_lee":
        axis = _side(power, usable, place)
        offsets = [offset for offset in offsets if offset[0] * axis[0] + offset[1] * axis[1] >= 0]
    values = np.array([power[place[0] + row, place[1] + column] for row, column in offsets])
    mean, pixel = values.mean(), power[place]
    variation = values.var() / mean**2 if mean > 0 else 0.0
    if method == "boxcar":
        return mean
    if method == "frost":
        weights = np.array([math.exp(-damping * variation * math.hypot(*offset)) for offset in offsets])
        return (weights * values).sum() / weights.sum()
    if method == "enhanced_lee":
        return _enhanced_lee(pixel, mean, math.sqrt(variation), looks, damping)
    if method == "gamma_map":
        return _gamma_map(pixel, mean, variation, looks)
    weight = max(0.0, 1 - 1 / (looks * variation)) if variation > 0 else 0.0
    return mean + weight * (pixel - mean)


def _enhanced_lee(pixel: float, mean: float, found: float, looks: float, damping: float) -> float:
    least, most = math.sqrt(1 / looks), math.sqrt(1 + 2 / looks)
    if found <= least:
        return mean
    if found >= most:
        return pixel
    weight = math.exp(-damping * (found - least) / (most - found))
    return mean * weight + pixel * (1 - weight)


def _gamma_map(pixel: float, mean: float, variation: float, looks: float) -> float:
    least = 1 / looks
    if variation <= least:
        return mean
    if variation >= 2 * least:
        return pixel
    order = (1 + least) / (variation - least)
    slope = (order - looks - 1) * mean
    return (slope + math.sqrt(slope**2 + 4 * order * looks * mean * pixel)) / (2 * order)


def _side(power: Pixels, usable: Mask, place: Place) -> Place:
    """Direction from the edge's far side to the pixel's own, for refined Lee."""
    whole = _mean(power, usable, place, _square(3))
    assert whole is not None  # the pixel itself is usable
    means: dict[Place, float] = {}
    for row, column in _square(1):
        found = _mean(power, usable, (place[0] + 2 * row, place[1] + 2 * column), _square(1))
        means[row, column] = whole if found is None else found
    best, most = (0, 1), -1.0
    for axis in ((0, 1), (1, 1), (1, 0), (1, -1)):
        rise = sum(np.sign(row * axis[0] + column * axis[1]) * mean for (row, column), mean in means.items())
        if abs(rise) > most * (1 + 1e-6):  # sums in another order must not choose another axis
            best, most = axis, abs(rise)
    opposite = (-best[0], -best[1])
    nearer = abs(means[opposite] - means[0, 0]) < abs(means[best] - means[0, 0]) * (1 - 1e-6)
    return opposite if nearer else best


def _mean(power: Pixels, usable: Mask, place: Place, offsets: list[Place]) -> float | None:
    near = [offset for offset in offsets if _is_usable(usable, place, offset)]
    return float(np.mean([power[place[0] + row, place[1] + column] for row, column in near])) if near else None


def _square(half: int) -> list[Place]:
    return [(row, column) for row in range(-half, half + 1) for column in range(-half, half + 1)]


def _is_usable(usable: Mask, place: Place, offset: Place) -> bool:
    row, column = place[0] + offset[0], place[1] + offset[1]
    return 0 <= row < usable.shape[0] and 0 <= column < usable.shape[1] and bool(usable[row, column])

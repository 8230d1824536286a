"""The three descriptors by their definition: one image, pixel after pixel, float64: what the fast ones must equal."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from geospatial.sar.descriptors import BLOCK_VALID_SHARE, DEFAULTS, DescriptorSettings

Pixels = NDArray[np.float64]


def reference(values: Pixels, usable: NDArray[np.bool_], settings: DescriptorSettings = DEFAULTS) -> tuple[float, ...]:
    """H, ENL and R, unscaled, of `values` X (H, W) where they are `usable`."""
    return _entropy(values, usable, settings), _looks(values, usable, settings), _roughness(values, usable, settings)


def _entropy(values: Pixels, usable: NDArray[np.bool_], settings: DescriptorSettings) -> float:
    kernel = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    gradients = []
    for row in range(1, values.shape[0] - 1):
        for column in range(1, values.shape[1] - 1):
            around = (slice(row - 1, row + 2), slice(column - 1, column + 2))
            if usable[around].all():
                gradients.append(((kernel * values[around]).sum(), (kernel.T * values[around]).sum()))
    magnitudes = [math.hypot(*gradient) for gradient in gradients]
    least = settings.tau * sum(magnitudes) / max(len(magnitudes), 1)
    period = 2 * math.pi if settings.period == "direction" else math.pi
    histogram = [0.0] * settings.bins
    for (gx, gy), magnitude in zip(gradients, magnitudes, strict=True):
        if magnitude > least:
            place = math.floor(math.atan2(gy, gx) / period * settings.bins + 0.5) % settings.bins
            histogram[place] += 1.0 if settings.weight == "one" else magnitude
    total = sum(histogram)
    return -sum(part / total * math.log(part / total) for part in histogram if part > 0)


def _looks(values: Pixels, usable: NDArray[np.bool_], settings: DescriptorSettings) -> float:
    pixels = values[usable]
    if pixels.size < 2:
        return 1.0
    variance = pixels.var()
    return min(pixels.mean() ** 2 / variance, settings.enl_max) if variance > 0 else settings.enl_max


def _roughness(values: Pixels, usable: NDArray[np.bool_], settings: DescriptorSettings) -> float:
    side, means = settings.block, []
    for row in range(0, values.shape[0] - side + 1, side):
        for column in range(0, values.shape[1] - side + 1, side):
            block = (slice(row, row + side), slice(column, column + side))
            if usable[block].sum() >= max(1, BLOCK_VALID_SHARE * side**2):
                means.append(values[block][usable[block]].mean())
    return float(np.var(means)) if means else 0.0

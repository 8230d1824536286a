"""Random fields with a Gaussian correlation, by Fourier transform: speckle, texture and natural outlines."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

#: Margin around a field in standard deviations of its kernel: the transform is periodic, the field must not be.
MARGIN = 5
Fields = NDArray[np.complex128]


def filtered(values: NDArray, blur: tuple[float, float]) -> Fields:
    """`values` (..., H, W) convolved, periodically, with a Gaussian of unit energy: white noise keeps its variance."""
    transfer = np.outer(*(_unit_energy(length, width) for length, width in zip(values.shape[-2:], blur, strict=True)))
    return np.fft.ifft2(np.fft.fft2(values) * transfer)


def margin(blur: tuple[float, float]) -> tuple[int, int]:
    """Pixels to add on each side before `filtered` and to cut off after it."""
    rows, columns = (math.ceil(MARGIN * width) for width in blur)
    return rows, columns


def smooth_noise(random: np.random.Generator, shape: tuple[int, int], width: float) -> NDArray[np.float64]:
    """Gaussian field of mean 0 and variance 1 whose kernel has the standard deviation `width` in pixels."""
    rows, columns = margin((width, width))
    noise = random.standard_normal((shape[0] + 2 * rows, shape[1] + 2 * columns))
    return filtered(noise, (width, width)).real[rows : rows + shape[0], columns : columns + shape[1]]


def _unit_energy(length: int, width: float) -> NDArray[np.float64]:
    """Transform of a sampled Gaussian whose squares add up to 1; that of a single 1 for width 0."""
    distance = np.minimum(np.arange(length), length - np.arange(length))
    kernel = np.exp(-(distance**2) / (2 * width**2)) if width > 0 else (distance == 0).astype(np.float64)
    return np.fft.fft(kernel / math.sqrt((kernel**2).sum())).real  # symmetric, so real

"""Speckle filters that need only the pixel, and the mean and variation of its window. Power in, power out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geospatial.sar.windows import Moments


def boxcar(moments: Moments) -> Tensor:
    """The mean. Independent pixels of L looks get L times as many as the window has pixels."""
    return moments.mean


def lee(power: Tensor, moments: Moments, looks: float) -> Tensor:
    """Least squares for multiplicative noise, linearised: mean + W (I - mean), W = clip(1 - Cu^2 / Ci^2, 0, 1)."""
    return moments.mean + lee_weight(moments.variation(), looks) * (power - moments.mean)


def lee_weight(variation: Tensor, looks: float) -> Tensor:
    """W in [0, 1] from Ci^2; 0 where nothing varies."""
    tiny = torch.finfo(variation.dtype).tiny
    return (1 - 1 / (looks * variation.clamp(min=tiny))).clamp(0, 1)


def enhanced_lee(power: Tensor, moments: Moments, looks: float, damping: float) -> Tensor:
    """The mean below Cu, the pixel above Cmax = sqrt(1 + 2 / L); between them the mean has the weight
    exp(-damping (Ci - Cu) / (Cmax - Ci)).
    """
    least, most = math.sqrt(1 / looks), math.sqrt(1 + 2 / looks)
    found = moments.variation().sqrt()
    tiny = torch.finfo(power.dtype).tiny
    weight = torch.exp(-damping * (found - least).clamp(min=0) / (most - found).clamp(min=tiny))  # 0 from Cmax on
    return moments.mean * weight + power * (1 - weight)


def gamma_map(power: Tensor, moments: Moments, looks: float) -> Tensor:
    """The mean below Cu, the pixel above sqrt 2 Cu; between them the mode of the reflectivity given the pixel:
    ((a - L - 1) m + sqrt(m^2 (a - L - 1)^2 + 4 a L m I)) / 2a with a = (1 + Cu^2) / (Ci^2 - Cu^2).
    """
    least, found, mean = 1 / looks, moments.variation(), moments.mean
    order = (1 + least) / (found - least).clamp(min=torch.finfo(power.dtype).eps)
    slope = (order - looks - 1) * mean
    root = (slope.square() + 4 * order * looks * mean * power).clamp(min=0).sqrt()
    between = torch.where(found >= 2 * least, power, (slope + root) / (2 * order))
    return torch.where(found <= least, mean, between)

"""The number of looks L of a radar image: what speckle theory says about it, and how to measure it.

Fully developed speckle of constant reflectivity has power ~ Gamma(L, mean). The closed forms follow (spec 5.1); the
estimators take power, never decibels or amplitude (spec 5.2): mean^2 / variance of amplitude reads about 4 L - 0.5.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from geospatial.sar.windows import moving_moments
from mmzoo.errors import InputError, suggestion

Estimator = Literal["moments", "log_cumulant", "maximum_likelihood"]
DECIBEL = 10 / math.log(10)
#: Newton reaches machine precision in half of these for L in [0.5, 100].
NEWTON_STEPS = 8
#: Windows with a smaller share of valid pixels do not vote on the looks of a scene.
WINDOW_VALID_SHARE = 0.9


def amplitude_mean(looks: float) -> float:
    """E[A] / sqrt(E[A^2]) of L-look amplitude: sqrt(pi) / 2 at L = 1."""
    return math.exp(math.lgamma(looks + 0.5) - math.lgamma(looks)) / math.sqrt(looks)


def amplitude_ratio(looks: float) -> float:
    """mean^2 / variance of L-look amplitude: pi / (4 - pi) at L = 1, 4 L - 1/2 + O(1/L)."""
    squared = amplitude_mean(looks) ** 2
    return squared / (1 - squared)


def looks_from_amplitude_ratio(ratio: float) -> float:
    """L whose `amplitude_ratio` is `ratio`, by bisection. InputError unless it is above 0."""
    if not ratio > 0:
        raise InputError(f"mean^2 / variance of amplitude is {ratio}, a number above 0 is needed")
    low, high = 0.0, ratio + 1  # the ratio of L is above L for every L
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if amplitude_ratio(middle) < ratio else (low, middle)
    return (low + high) / 2


def decibel_deviation(looks: float) -> float:
    """Standard deviation of L-look power in dB: 5.57 at L = 1."""
    return DECIBEL * math.sqrt(_polygamma(1, looks))


def decibel_bias(looks: float) -> float:
    """Mean of dB values minus dB of the mean power: -2.51 dB at L = 1. Why decibels are not averaged."""
    return DECIBEL * (_polygamma(0, looks) - math.log(looks))


def looks_of_mean(coherence: Tensor) -> float:
    """Looks of the mean of n single-look powers with complex coherence (n, n) between them: n^2 / sum |gamma|^2."""
    return coherence.shape[0] ** 2 / coherence.abs().square().sum().item()


def looks_of_variation(mean_power_variation: float, looks: float) -> float:
    """mean^2 / variance of L-look power whose reflectivity has squared variation cv^2: 1 / (1/L (1 + cv^2) + cv^2)."""
    return 1 / ((1 + mean_power_variation) / looks + mean_power_variation)


def estimate_looks(power: Tensor, valid: Tensor | None = None, estimator: Estimator = "maximum_likelihood") -> float:
    """L of a homogeneous area of `power`, any shape.

    Pixels that are not finite, not above 0 or not `valid` are left out. InputError with fewer than two pixels left, and
    where they do not vary.
    """
    if estimator not in get_args(Estimator):
        raise InputError(f"unknown estimator {estimator!r} of looks.{suggestion(estimator, get_args(Estimator))}")
    usable = torch.isfinite(power) & (power > 0)
    pixels = power[usable if valid is None else usable & valid].double()
    if pixels.numel() < 2 or pixels.min() == pixels.max():
        raise InputError(
            f"looks cannot be measured on {pixels.numel()} valid pixels without variance. Say their number"
        )
    if estimator == "moments":
        return (pixels.mean().square() / pixels.var(correction=0)).item()
    logs = pixels.log()
    if estimator == "log_cumulant":
        return inverse_trigamma(logs.var(correction=0).item())
    return _likeliest((pixels.mean().log() - logs.mean()).item())


def scene_looks(power: Tensor, window: int = 25, valid: Tensor | None = None) -> float:
    """L of a scene (..., H, W) with all sorts of areas: the median of mean^2 / variance in `window` x `window` pixels.

    Windows with texture pull it down, so it is a lower estimate. InputError when no window is valid, or none varies.
    """
    usable = torch.isfinite(power) & (power > 0)
    moments = moving_moments(power, window, usable if valid is None else usable & valid)
    full = (moments.count >= WINDOW_VALID_SHARE * window**2) & (moments.squares > 0)
    votes = 1 / moments.variation()[full]
    if votes.numel() == 0:
        raise InputError(f"no window of {window} x {window} pixels is valid and varies. Give the looks as a number")
    return votes.median().item()


def trace_moment_looks(covariances: Tensor) -> float:
    """L of sample covariance matrices (N, p, p) of one homogeneous area: tr(<C>)^2 / (<tr(CC)> - tr(<C><C>))."""
    mean = covariances.mean(0)
    spread = torch.einsum("nij,nji->n", covariances, covariances).mean() - torch.einsum("ij,ji->", mean, mean)
    return (torch.trace(mean).real.square() / spread.real).item()


def inverse_trigamma(value: float) -> float:
    """L with psi1(L) = `value` > 0, by Newton from 1/2 + 1/value."""
    looks = 0.5 + 1 / value
    for _ in range(NEWTON_STEPS):
        trigamma = _polygamma(1, looks)
        looks += trigamma * (1 - trigamma / value) / _polygamma(2, looks)
    return looks


def _likeliest(gap: float) -> float:
    """L with ln L - psi(L) = `gap` = ln(mean) - mean(ln)."""
    looks = (3 - gap + math.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
    for _ in range(NEWTON_STEPS):
        excess = math.log(looks) - _polygamma(0, looks) - gap
        looks -= excess / (1 / looks - _polygamma(1, looks))
    return looks


def _polygamma(order: int, value: float) -> float:
    return torch.special.polygamma(order, torch.tensor(value, dtype=torch.float64)).item()

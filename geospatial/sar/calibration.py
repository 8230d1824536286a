"""From the counts in a product to radar cross-section, and back.

    power = (|count|^2 - noise) / gain^2        sigma0, beta0 or gamma0, as the gain is meant
    sigma0 = beta0 sin(incidence)               gamma0 = sigma0 / cos(incidence) = beta0 tan(incidence)

`gain` and `noise` are one number, or tables interpolated to the image. Counts may be complex. Invalid pixels become NaN
and stay it. Power below zero, which noise removal leaves where there is only noise, is kept: it is unbiased, and
`domains.from_power(..., floor=)` is where it ends. Source: spec section 5.7; Sentinel-1 Level-1 product definition.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geospatial.sar.domains import valid_pixels
from mmzoo.errors import InputError


def calibrated(counts: Tensor, gain: Tensor | float, nodata: float | None, noise: Tensor | float = 0.0) -> Tensor:
    """Power (..., H, W) of `counts`, real (detected amplitude) or complex, float32 or better.

    `gain` and `noise` broadcast to `counts`. `nodata`: the count that means nothing was measured (0 in most detected
    products), NaN, or None when every count was. InputError unless every gain is above 0 and every noise at least 0.
    """
    _check(gain, noise)
    valid = valid_pixels(counts, nodata)
    power = _squared(counts) - noise
    return torch.where(valid, power / gain**2, torch.nan)


def uncalibrated(power: Tensor, gain: Tensor | float, noise: Tensor | float = 0.0) -> Tensor:
    """The real counts, not rounded, that `calibrated` turns into `power`; NaN where no count does."""
    _check(gain, noise)
    return (power * gain**2 + noise).sqrt()


def gain_from_decibels(factor: float) -> float:
    """Gain of products that say: sigma0 in dB = 20 log10(count) + `factor` (as ALOS, whose factor is -83)."""
    return 10 ** (-factor / 20)


def interpolated_table(lines: Tensor, pixels: Tensor, table: Tensor, shape: tuple[int, int]) -> Tensor:
    """A calibration or noise table (L, P), given at image `lines` (L,) and `pixels` (P,), bilinear on an image (H, W).

    InputError unless positions rise and reach from 0 to the last line and pixel: nothing is extrapolated.
    """
    if table.shape != (len(lines), len(pixels)):
        raise InputError(f"the table is {tuple(table.shape)}, its lines and pixels are {len(lines)} and {len(pixels)}")
    rows, row_share = _places(lines, shape[0], "lines")
    columns, column_share = _places(pixels, shape[1], "pixels")
    table = table.to(row_share.dtype)
    upright = torch.lerp(table[rows], table[rows + 1], row_share[:, None])
    return torch.lerp(upright[:, columns], upright[:, columns + 1], column_share)


def beta0_to_sigma0(beta0: Tensor, incidence: Tensor | float) -> Tensor:
    """`incidence` in degrees, one or one a pixel; also below. InputError unless it is between 0 and 90."""
    return beta0 * _radians(incidence, beta0).sin()


def sigma0_to_beta0(sigma0: Tensor, incidence: Tensor | float) -> Tensor:
    return sigma0 / _radians(incidence, sigma0).sin()


def sigma0_to_gamma0(sigma0: Tensor, incidence: Tensor | float) -> Tensor:
    return sigma0 / _radians(incidence, sigma0).cos()


def gamma0_to_sigma0(gamma0: Tensor, incidence: Tensor | float) -> Tensor:
    return gamma0 * _radians(incidence, gamma0).cos()


def _squared(counts: Tensor) -> Tensor:
    if counts.is_complex():
        return counts.real.square() + counts.imag.square()
    return (counts if counts.dtype == torch.float64 else counts.float()).square()


def _check(gain: Tensor | float, noise: Tensor | float) -> None:
    if not bool((torch.as_tensor(gain) > 0).all()):
        raise InputError("the calibration gain must be above 0 everywhere. Does its table hold a nodata value?")
    if not bool((torch.as_tensor(noise) >= 0).all()):
        raise InputError("the noise must be 0 or more everywhere, in squared counts, not in decibels")


def _places(known: Tensor, length: int, name: str) -> tuple[Tensor, Tensor]:
    """For 0..length-1: the index of the known position before each, and how far it is to the next, 0 to 1."""
    known = known.double()
    if len(known) < 2 or not bool((known.diff() > 0).all()):
        raise InputError(f"the {name} of a table must be two or more and rise")
    if known[0] > 0 or known[-1] < length - 1:
        raise InputError(f"the table covers {name} {known[0]:g} to {known[-1]:g}, the image has 0 to {length - 1}")
    wanted = torch.arange(length, dtype=torch.float64, device=known.device)
    before = (torch.searchsorted(known, wanted, right=True) - 1).clamp(0, len(known) - 2)
    return before, (wanted - known[before]) / (known[before + 1] - known[before])


def _radians(incidence: Tensor | float, like: Tensor) -> Tensor:
    angle = torch.as_tensor(incidence, dtype=like.dtype, device=like.device)
    if not bool(((angle > 0) & (angle < 90)).all()):
        raise InputError("incidence angles are between 0 and 90 degrees. Are they in radians, or hold a nodata value?")
    return torch.deg2rad(angle)

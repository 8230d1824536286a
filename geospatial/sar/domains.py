"""What the numbers of a radar raster are: power, amplitude, decibels, a display picture; and the way between them.

Averages, filters and numbers of looks belong to linear power, so every step converts here and nowhere else.
Invalid pixels are those that are not finite, equal the nodata value, or are masked by the caller; conversions leave
them invalid and never turn an impossible value into a possible one.
Source: spec sections 5.1 and 5.7.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal, get_args

import torch
from torch import Tensor

from mmzoo.errors import InputError, suggestion

Domain = Literal["log1p", "intensity", "amplitude", "db", "display8"]
#: log1p: any linear values, of which the model's paper takes ln(1 + |X|). display8: 0..255 for the eye, scale unknown.
DOMAINS: tuple[Domain, ...] = get_args(Domain)
PHYSICAL: tuple[Domain, ...] = ("intensity", "amplitude", "db")

#: 1e-10 and 1e10 in power: beyond any calibrated scene and any 16-bit count (96 dB).
DB_LIMIT = 100.0
#: The largest value that the limit leaves to linear values; log1p may hold power.
MOST = {"intensity": 10 ** (DB_LIMIT / 10), "log1p": 10 ** (DB_LIMIT / 10), "amplitude": 10 ** (DB_LIMIT / 20)}
#: Shares of negative pixels from which a warning is due: noise removal makes some, a wrong domain makes most.
NEGATIVE_POWER_SHARE, NEGATIVE_LINEAR_SHARE = 0.1, 0.9


def check_name(domain: str) -> None:
    """InputError unless `domain` is one of DOMAINS."""
    if domain not in DOMAINS:
        raise InputError(f"unknown domain {domain!r} of a radar image.{suggestion(domain, DOMAINS)}")


def refuse_complex(values: Tensor) -> None:
    """InputError when `values` are complex: a single-look complex image has no one real reading."""
    if values.is_complex():
        raise InputError(
            "the image is complex (SLC) and real values are needed. Choose its part with "
            "geospatial.sar.polarimetry.component: amplitude, intensity, real, imaginary or phase"
        )


def to_power(values: Tensor, domain: str) -> Tensor:
    """Linear power of `values`, at least float32. InputError for log1p and display8, whose scale is lost."""
    check_name(domain)
    refuse_complex(values)
    values = values if values.dtype == torch.float64 else values.float()
    if domain == "intensity":
        return values
    if domain == "amplitude":
        return values.square()
    if domain == "db":
        return torch.pow(10.0, values / 10)
    raise InputError(f"{domain} values cannot be turned into power. Give intensity, amplitude or db")


def from_power(power: Tensor, domain: str, floor: float | None = None) -> Tensor:
    """`power` in `domain` (intensity, amplitude or db).

    Without `floor`, negative power has no amplitude and no decibels, and zero no decibels: NaN. `floor` (power, above
    0), such as the noise floor of the sensor, replaces everything below it in all three domains.
    """
    check_name(domain)
    if domain not in PHYSICAL:
        raise InputError(f"power cannot be turned into {domain}. Ask for intensity, amplitude or db")
    if floor is not None:
        if not (math.isfinite(floor) and floor > 0):
            raise InputError(f"the noise floor is {floor}, a power above 0 is needed (-22 dB is 0.0063)")
        power = power.clamp(min=floor)
    if domain == "intensity":
        return power
    if domain == "amplitude":
        return power.sqrt()
    return torch.where(power > 0, power, torch.nan).log10() * 10


def convert(values: Tensor, source: str, target: str, floor: float | None = None) -> Tensor:
    """`values` of domain `source` in domain `target`, through power; `floor` as in `from_power`."""
    return from_power(to_power(values, source), target, floor)


def valid_pixels(values: Tensor, nodata: float | None = None) -> Tensor:
    """Boolean mask of `values`: finite (both parts, when complex) and other than `nodata` (None, NaN or a number)."""
    finite = torch.isfinite(values)
    return finite if nodata is None or math.isnan(nodata) else finite & (values != nodata)


def check_domain(values: Tensor, domain: str, valid: Tensor | None = None) -> None:
    """Compares real `values` with what `domain` can hold; `valid` broadcasts to it. Reads the data: a host sync.

    InputError for what is impossible (negative amplitude, power below 0 on average, values beyond 100 dB such as
    unmasked fill values, display values outside 0..255), a warning for what is merely unlikely. An image without valid
    pixels passes.
    """
    check_name(domain)
    refuse_complex(values)
    least, most = _range(values, valid)
    if least > most:
        return
    if domain == "db":
        _check_db(least, most)
    elif domain == "display8":
        _check_display(least, most)
    else:
        _check_linear(least, most, domain)
    if least < 0 and domain in MOST:
        _check_negative(values[_usable(values, valid)].float(), domain)


def _usable(values: Tensor, valid: Tensor | None) -> Tensor:
    finite = torch.isfinite(values)
    return finite if valid is None else finite & valid


def _range(values: Tensor, valid: Tensor | None) -> tuple[float, float]:
    """Least and largest usable value, inf and -inf where there is none."""
    if not values.numel():
        return math.inf, -math.inf
    if valid is None or valid.all():  # one pass instead of four, unless it meets what is not finite
        least, most = values.amin().item(), values.amax().item()
        if math.isfinite(least) and math.isfinite(most):
            return least, most
    usable = _usable(values, valid)
    return torch.where(usable, values, math.inf).amin().item(), torch.where(usable, values, -math.inf).amax().item()


def _check_linear(least: float, most: float, domain: str) -> None:
    extreme = max(most, -least)
    if extreme > MOST[domain]:
        raise InputError(
            f"domain {domain}, but the values reach {extreme:g}, beyond {MOST[domain]:g}, which no radar gives. "
            f"If that is a fill value, mask it: nodata"
        )


def _check_negative(found: Tensor, domain: str) -> None:
    share = (found < 0).float().mean().item()
    advice = "If it is in decibels, say domain db; if it holds a nodata value, mask that"
    if domain == "amplitude":
        least = found.min().item()
        raise InputError(f"domain amplitude, but {share:.2%} of the pixels are negative (least {least:g}). {advice}")
    if domain == "intensity" and found.mean() < 0:
        raise InputError(f"domain intensity, but the mean is {found.mean():g} and power is positive. {advice}")
    if share > (NEGATIVE_POWER_SHARE if domain == "intensity" else NEGATIVE_LINEAR_SHARE):
        warnings.warn(f"domain {domain}, but {share:.0%} of the pixels are negative: in decibels?", stacklevel=4)


def _check_db(least: float, most: float) -> None:
    if max(-least, most) > DB_LIMIT:
        raise InputError(
            f"domain db, but the values reach from {least:g} to {most:g}, beyond {DB_LIMIT:g} dB. "
            "Say the domain they are in, mask the nodata value, or undo the scaling of integers"
        )
    if least >= 0 and most > 0:
        warnings.warn(f"domain db, but no value is below 0 dB ({least:g} to {most:g}): linear values?", stacklevel=4)


def _check_display(least: float, most: float) -> None:
    if least < 0 or most > 255:
        raise InputError(f"domain display8, but the values reach from {least:g} to {most:g}, not 0 to 255. Say another")
    if 0 < most <= 1:
        warnings.warn(f"domain display8, but no value is above {most:g}: already divided by 255?", stacklevel=4)

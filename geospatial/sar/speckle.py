"""Speckle filters: calmer images whose edges stay, on linear power whatever domain the image comes in.

    boxcar         the mean of the window
    lee            mean + W (I - mean), W = 1 - Cu^2 / Ci^2                     Lee 1980
    enhanced_lee   mean where Ci <= Cu, I where Ci >= Cmax, between them mixed  Lopes, Touzi and Nezry 1990
    refined_lee    lee in the half of a 7x7 window on the pixel's side of an edge               Lee 1981
    frost          mean weighted by exp(-damping Ci^2 distance)                 Frost et al. 1982
    gamma_map      most likely reflectivity under a gamma prior                 Lopes, Nezry, Touzi and Laur 1993

Cu^2 = 1 / looks is the variation that speckle alone makes, Ci^2 = variance / mean^2 that of the window. Written in
torch: the windows are those of the local descriptors, and batches, float64 and devices come with it.
On speckle without texture the mean stays within 0.1 % but for refined_lee (1.5 % low at one look, 0.4 % at four) and
gamma_map, which seeks a mode (3.7 % and 1.4 % low).
Every filter has its definition, pixel by pixel, in `speckle_reference`. Source of the formulas: spec section 5.7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from geospatial.sar.adaptive_filters import boxcar, enhanced_lee, gamma_map, lee
from geospatial.sar.domains import check_domain, from_power, to_power
from geospatial.sar.frost import frost
from geospatial.sar.looks import scene_looks
from geospatial.sar.refined_lee import WINDOW as REFINED_WINDOW
from geospatial.sar.refined_lee import refined_lee
from geospatial.sar.windows import check_window, moving_moments
from mmzoo.errors import InputError, suggestion

Method = Literal["boxcar", "lee", "enhanced_lee", "refined_lee", "frost", "gamma_map"]
METHODS: tuple[Method, ...] = get_args(Method)
#: Windows in which the looks of a scene are estimated, at most: in larger ones there is texture.
ESTIMATION_WINDOW = 25


@dataclass(frozen=True)
class SpeckleFilter:
    """What to filter with. InputError for an unknown method, looks or damping not above 0, or an even window."""

    method: Method
    looks: float | Literal["estimate"]
    """Number of looks of the image, or "estimate": `looks.scene_looks`, which needs areas without texture."""
    window: int = 7
    """Side in pixels; refined_lee is defined for 7 alone."""
    damping: float = 1.0
    """Of frost and enhanced_lee; the higher, the less is smoothed."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"unknown speckle filter {self.method!r}.{suggestion(self.method, METHODS)}")
        if self.looks != "estimate" and not (isinstance(self.looks, int | float) and self.looks > 0):
            raise InputError(f"the number of looks is {self.looks!r}. Give one above 0, or 'estimate'")
        if not self.damping > 0:
            raise InputError(f"the damping is {self.damping}, a number above 0 is needed")
        check_window(self.window)
        if self.method == "refined_lee" and self.window != REFINED_WINDOW:
            raise InputError(f"refined_lee has a window of {REFINED_WINDOW}, not {self.window}")


def despeckle(image: Tensor, domain: str, filter: SpeckleFilter, valid: Tensor | None = None) -> Tensor:
    """`image` (..., H, W) filtered in power and given back in `domain`, float32 or better.

    Pixels that are not finite or not `valid` (boolean, same shape) stay as they are and count nowhere else; windows end
    at the edge of the image. InputError for values that `domain` cannot hold, and for log1p and display8.
    """
    usable = torch.isfinite(image)
    usable = usable if valid is None else usable & valid
    power = to_power(torch.where(usable, image, 0), domain)
    check_domain(image, domain, usable)
    if not bool(usable.any()):
        return image.to(power.dtype)
    looks = _looks_of(power, usable, filter)
    return torch.where(usable, from_power(_filtered(power, usable, looks, filter), domain), image.to(power.dtype))


def _filtered(power: Tensor, usable: Tensor, looks: float, filter: SpeckleFilter) -> Tensor:
    if filter.method == "refined_lee":
        return refined_lee(power, usable, looks)
    moments = moving_moments(power, filter.window, usable)
    if filter.method == "boxcar":
        return boxcar(moments)
    if filter.method == "lee":
        return lee(power, moments, looks)
    if filter.method == "enhanced_lee":
        return enhanced_lee(power, moments, looks, filter.damping)
    if filter.method == "gamma_map":
        return gamma_map(power, moments, looks)
    return frost(power, usable, moments, filter.window, filter.damping)


def _looks_of(power: Tensor, usable: Tensor, filter: SpeckleFilter) -> float:
    if filter.looks != "estimate":
        return filter.looks
    if filter.method in ("boxcar", "frost"):
        return 1.0  # neither asks
    side = min(power.shape[-2:])
    return scene_looks(power, min(ESTIMATION_WINDOW, side - 1 + side % 2), usable)

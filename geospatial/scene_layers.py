"""What a map is made of: the classes, and what else may be asked for, each a raster of its own with its bands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geospatial.class_masks import IGNORE
from mmzoo.errors import InputError

#: Values of what `percent` gives are 0 to 100; this one has no data.
PERCENT_NODATA = 255
IN_CACHE = 2**18  #: pixels of float32 that a core holds near itself


@dataclass(frozen=True)
class Layer:
    """A raster beside others of one scene: `bands` are their descriptions, `resampling` of its overviews.

    `encode`: finished numbers (channels, n, W) -> (bands, n, W), before pixels without data get `nodata`.
    """

    name: str
    bands: tuple[str, ...]
    dtype: str
    nodata: float
    resampling: str
    encode: Callable[[Tensor], Tensor]

    @property
    def is_mode(self) -> bool:
        """Whether its overviews are the most frequent classes."""
        return self.resampling == "mode"

    def rows(self, values: Tensor, valid: np.ndarray) -> np.ndarray:
        """(n, bands, W) of `dtype`, as rows lie in the working file; `valid` bool (n, W)."""
        encoded = self.encode(values).cpu().numpy().swapaxes(0, 1)
        found = np.empty(encoded.shape, self.dtype)  # not a view: the numbers may change before the rows are written
        found[:] = encoded
        if not valid.all():
            np.copyto(found, self.nodata, where=~valid[:, None], casting="unsafe")
        return found


def classes_layer(names: Sequence[str], overviews: str = "mode") -> Layer:
    """The number of the most probable class, uint8; of equals the first. InputError: more classes than uint8 holds."""
    count = len(names)
    if count >= IGNORE:
        raise InputError(f"the model has {count} classes; a map holds fewer than {IGNORE}, its nodata value")
    return Layer("classes", ("class",), "uint8", IGNORE, overviews, lambda values: first_largest(values[:count])[None])


def confidence_layer(classes: int) -> Layer:
    """The largest class probability in per cent, uint8."""
    bands = ("probability of the class, per cent",)
    return Layer(
        "confidence", bands, "uint8", PERCENT_NODATA, "average", lambda values: percent(values[:classes].amax(0)[None])
    )


def probabilities_layer(names: Sequence[str]) -> Layer:
    """The probability of each class in per cent, uint8."""
    bands = tuple(f"probability of {name}, per cent" for name in names)
    return Layer(
        "probabilities", bands, "uint8", PERCENT_NODATA, "average", lambda values: percent(values[: len(bands)])
    )


def experts_layer(first: int, count: int) -> Layer:
    """How often each expert was chosen for a pixel's token, over all blocks, in per cent, uint8."""
    bands = tuple(f"use of expert {number}, per cent" for number in range(count))
    last = first + count
    return Layer("experts", bands, "uint8", PERCENT_NODATA, "average", lambda values: percent(values[first:last]))


def descriptors_layer(first: int, names: Sequence[str]) -> Layer:
    """The descriptors that the routers were given, float32."""
    last = first + len(names)
    return Layer("descriptors", tuple(names), "float32", float("nan"), "average", lambda values: values[first:last])


def first_largest(values: Tensor) -> Tensor:
    """Number (n, W), uint8, of the first largest of up to 256 channels (K, n, W): `argmax`, many times faster on a
    CPU, where that walks along the channels of each pixel. Where there is NaN, any.
    """
    number = torch.zeros(values.shape[1:], dtype=torch.uint8, device=values.device)
    rows = max(1, IN_CACHE // max(1, number.shape[1])) if values.device.type == "cpu" else len(number)
    for part, found in zip(values.split(rows, 1), number.split(rows), strict=True):
        best = part[0]
        for channel in range(1, len(part)):
            larger = (part[channel] > best).view(torch.uint8)
            found ^= (found ^ channel) & -larger  # masked_fill_ in bits: no branch for each pixel
            if channel + 1 < len(part):
                best = torch.maximum(best, part[channel])
    return number


def percent(shares: Tensor) -> Tensor:
    """Shares 0 to 1 as whole per cent."""
    return (shares * 100).round().clamp(0, 100).to(torch.uint8)

"""A raster as people see it: 8 bits, stretched, one band grey or three bands as red, green and blue.

For looking only: the stretch depends on the raster, so brightness cannot be compared between two pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

LOW, HIGH = 2, 98  # percentiles of the data that become black and white
RGB = 3


def raster_picture(bands: np.ndarray, nodata: float | None = None) -> np.ndarray:
    """uint8 (H, W, 3) of a raster (bands, H, W) of any dtype; `nodata`, NaN and infinities are black.

    Three bands or more: the first three, each stretched between its 2nd and 98th percentile; else the first one, grey.
    Of complex values the magnitude counts. A band of one value is black.
    """
    shown = bands[:RGB] if len(bands) >= RGB else bands[:1]
    stretched = [_stretched(np.abs(band) if np.iscomplexobj(band) else band, nodata) for band in shown]
    return np.ascontiguousarray(np.stack(stretched * (RGB // len(stretched)), axis=-1))


def _stretched(band: np.ndarray, nodata: float | None) -> np.ndarray:
    values = band.astype(np.float64)
    held = np.isfinite(values) & (values != nodata)
    if not held.any():
        return np.zeros(band.shape, np.uint8)
    low, high = np.percentile(values[held], [LOW, HIGH])
    if high <= low:
        low, high = values[held].min(), values[held].max()
    scaled = (np.where(held, values, low) - low) / max(high - low, np.finfo(np.float64).tiny)
    return np.rint(scaled.clip(0, 1) * 255).astype(np.uint8)


def first_nodata(meta: Mapping[str, Any]) -> float | None:
    """The nodata value of the first raster, as the json of its sample has it."""
    value = next((entry.get("nodata") for entry in meta.get("rasters") or ()), None)
    return None if value is None else float(value)

"""What a stored file says of itself, found by decoding it once: a broken one is an InputError here, not in training."""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image

from data_engine.decode import DAMAGE, EXTENSIONS, MAX_PIXELS, decode_image, read_header
from mmzoo.errors import InputError

MAX_VALUES = 2**31  # of all bands of a raster
MASK_MODES = {"1", "L", "P", "I", "I;16", "I;16B"}


def image_facts(data: bytes, rules: Counter[str]) -> tuple[str, dict[str, Any]]:
    """(extension, sha256, width and height in px as decoded, mode, format) of an image. InputError: not a sound one.

    `rules` counts the image rules of decode.py that a reader will apply.
    """
    header = read_header(data)
    height, width, _ = decode_image(data, counts=rules).shape
    facts = {"width": width, "height": height, "mode": header.mode, "format": header.format}
    return EXTENSIONS[header.format], {"sha256": hashlib.sha256(data).hexdigest(), **facts}


def mask_facts(data: bytes) -> tuple[str, dict[str, Any]]:
    """The same of a mask. InputError: not an image of one integer a pixel."""
    header = read_header(data)
    height, width = decode_mask(data).shape
    facts = {"width": width, "height": height, "mode": header.mode, "format": header.format}
    return EXTENSIONS[header.format], {"sha256": hashlib.sha256(data).hexdigest(), **facts}


def decode_mask(data: bytes) -> np.ndarray:
    """int32 (H, W): the stored values, of a palette the numbers. InputError: no integer mask, damaged, too large."""
    header = read_header(data)
    if header.mode not in MASK_MODES:
        raise InputError(f"a mask has one integer a pixel, this has mode {header.mode}. Store class numbers")
    if header.format == "JPEG":
        raise InputError("a mask in JPEG has no exact values. Store class numbers as PNG or TIFF")
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image).astype(np.int32)
    except DAMAGE as fault:
        raise InputError(f"damaged mask: {' '.join(str(fault).split()) or type(fault).__name__}") from None


def raster_facts(data: bytes) -> tuple[str, dict[str, Any]]:
    """Of a GeoTIFF: its extension, sha256, size in px, bands, dtype, CRS (EPSG name or WKT; None), affine transform
    (a, b, c, d, e, f of x = a column + b row + c, y = d column + e row + f) and nodata. InputError: damaged.
    """
    with _opened(data) as raster:
        _read(raster)
        nodata = raster.nodata
        return "tif", {
            "sha256": hashlib.sha256(data).hexdigest(),
            "width": raster.width,
            "height": raster.height,
            "bands": raster.count,
            "dtype": raster.dtypes[0],
            "crs": raster.crs.to_string() if raster.crs else None,
            "transform": list(raster.transform)[:6],
            "nodata": nodata if nodata is None or math.isfinite(nodata) else str(nodata),
        }


def decode_raster(data: bytes) -> np.ndarray:
    """(bands, H, W) in the raster's own dtype. InputError: damaged, or too large."""
    with _opened(data) as raster:
        return _read(raster)


def _opened(data: bytes) -> Any:
    # Lazily: it takes a third of a second, and few samples have a raster.
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.io import MemoryFile

    if not data:
        raise InputError("not a raster that can be read: it is empty")
    try:
        # No other driver: a virtual raster under this name would have any file or address read that it names.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # pictures without coordinates are welcome
            return MemoryFile(data).open(driver="GTiff")
    except RasterioError as fault:
        raise InputError(f"not a raster that can be read: {' '.join(str(fault).split())}") from None


def _read(raster: Any) -> np.ndarray:
    from rasterio.errors import RasterioError

    if raster.width * raster.height > MAX_PIXELS or raster.width * raster.height * raster.count > MAX_VALUES:
        raise InputError(
            f"too many pixels for one sample: {raster.width} x {raster.height} in {raster.count} bands. Tile the scene "
            f"first"
        )
    try:
        return raster.read()
    except RasterioError as fault:
        raise InputError(f"damaged raster: {' '.join(str(fault).split())}") from None

"""Rasters made on the spot, with coordinates, as GDAL writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin


def make_raster(path: Path, values: np.ndarray, domain: str | None = "amplitude", **options) -> Path:
    """`values` (C, H, W) as a GeoTIFF in UTM 33N with 10 m pixels."""
    place = {"crs": "EPSG:32633", "transform": from_origin(500000, 5000000, 10, 10)}
    size = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", **size, **place, **options) as file:
        file.write(values)
        if domain:
            file.update_tags(domain=domain)
    return path


@pytest.fixture(scope="session")
def raster_at():
    """`make_raster`, so that test files need no import of each other."""
    return make_raster

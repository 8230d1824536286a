"""Where a scene lies on the ground, as its file says it, and the same for a part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.warp import transform_geom

from geospatial.raster import Window, rasterio_faults

LONGITUDE_LATITUDE = CRS.from_epsg(4326)


class Place(NamedTuple):
    """crs: None where the file names none. transform: of columns and rows (px) to coordinates, identity without one.
    gcps: ground control points, in `gcps_crs`. rpcs: rational polynomial coefficients as GDAL's tags.
    """

    crs: CRS | None
    transform: Affine
    gcps: list[GroundControlPoint]
    gcps_crs: CRS | None
    rpcs: dict[str, str]

    def part(self, window: Window) -> Place:
        """The place of a window. RPC have offsets of their own, which follow it."""
        points = [_moved(each, window) for each in self.gcps]
        rpcs = dict(self.rpcs)
        for name, shift in (("LINE_OFF", window.top), ("SAMP_OFF", window.left)):
            if shift and name in rpcs:
                rpcs[name] = repr(float(rpcs[name].split()[0]) - shift)
        transform = self.transform @ Affine.translation(window.left, window.top)
        return Place(self.crs, transform, points, self.gcps_crs, rpcs)

    @property
    def is_rotated(self) -> bool:
        """Whether rows do not run along a coordinate axis."""
        return self.transform.b != 0 or self.transform.d != 0

    def outline(self, height: int, width: int) -> dict[str, Any]:
        """The border of a raster of that size as a GeoJSON polygon in the coordinates of `transform`."""
        corners = [(0, 0), (0, height), (width, height), (width, 0), (0, 0)]
        return {"type": "Polygon", "coordinates": [[tuple(self.transform @ corner) for corner in corners]]}

    def in_degrees(self, geometry: dict[str, Any]) -> dict[str, Any]:
        """A geometry in longitude and latitude (WGS 84), as it is when there is no CRS."""
        return geometry if self.crs is None else dict(transform_geom(self.crs, LONGITUDE_LATITUDE, geometry))


def _moved(point: GroundControlPoint, window: Window) -> GroundControlPoint:
    row, column = float(point.row or 0) - window.top, float(point.col or 0) - window.left
    return GroundControlPoint(row, column, point.x, point.y, point.z, point.id, point.info)


def place_of(path: Path) -> Place:
    """The place of a raster."""
    with rasterio_faults(path), rasterio.open(path) as file:
        points, crs = file.gcps
        return Place(file.crs, file.transform, list(points), crs, dict(file.tags(ns="RPC")))

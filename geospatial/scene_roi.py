"""The part of a scene that is asked for: bounds, or a GeoJSON file, in any coordinates."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.features import geometry_mask
from rasterio.warp import transform_geom

from geospatial.raster import Window
from geospatial.scene_place import LONGITUDE_LATITUDE, Place
from mmzoo.errors import InputError

#: How far (px) an edge may miss the middle of nothing: bounds that were written with rounding.
ROUNDING = 1e-6
MOST_POINTS = 400  #: of a ring, to follow straight edges into other coordinates
ROWS = 512  #: of a region, looked at together


class Region(NamedTuple):
    """The smallest `window` of a scene that holds the region, and its shapes in px of the scene; none: all of it."""

    window: Window
    shapes: list[dict[str, Any]]

    def inside(self, top: int, rows: int) -> np.ndarray:
        """Which pixels of `rows` rows from `top` (px from the top of the window) have their middle in the region."""
        size = rows, self.window.width
        if not self.shapes:
            return np.ones(size, bool)
        origin = Affine.translation(self.window.left, self.window.top + top)
        return geometry_mask(self.shapes, size, origin, invert=True)


def whole_scene(height: int, width: int) -> Region:
    """All of it."""
    return Region(Window(0, 0, height, width), [])


def find_region(roi: str, crs: str | None, place: Place, size: tuple[int, int], scene: Path) -> Region:
    """The region that `roi` names: "minx,miny,maxx,maxy", in the scene's own coordinates, or a GeoJSON file, which is
    in longitude and latitude; `crs` says another. A scene without CRS has pixels as coordinates.

    InputError: neither, an empty region, one outside the scene, a CRS for a scene without one.
    """
    bounds = _bounds(roi)
    shapes = _from_file(Path(roi)) if bounds is None else [_box(*bounds)]
    named = _crs(crs) if crs is not None else None if bounds is not None else LONGITUDE_LATITUDE
    if crs is not None and place.crs is None:
        raise InputError(f"{scene} has no CRS, so --roi-crs {crs} leads nowhere. Give --roi in pixels (column,row)")
    for shape in shapes:
        _check_rings(shape, roi)
    if named is not None and place.crs is not None and named != place.crs:
        shapes = [_moved(_dense(shape), named, place.crs, roi) for shape in shapes]
    if place.transform.is_degenerate:
        raise InputError(f"{scene} has a transform without area, so --roi leads nowhere in it. Mend the scene")
    pixels = [_mapped(shape, ~place.transform) for shape in shapes]
    window = _window(pixels, size, roi, scene)
    exact = bounds is not None and named in (None, place.crs) and not place.is_rotated
    region = Region(window, [] if exact else pixels)
    if not exact and not any(region.inside(top, rows).any() for top, rows in _pieces(window.height)):
        raise InputError(f"--roi {roi} holds the middle of no pixel of {scene}. Give a larger one")
    return region


def _pieces(height: int) -> Iterator[tuple[int, int]]:
    return ((top, min(ROWS, height - top)) for top in range(0, height, ROWS))


def _bounds(roi: str) -> tuple[float, float, float, float] | None:
    try:
        left, bottom, right, top = (float(part) for part in roi.split(","))
    except ValueError:
        return None
    if not all(map(math.isfinite, (left, bottom, right, top))) or left >= right or bottom >= top:
        raise InputError(f"--roi {roi} holds nothing. Give minx,miny,maxx,maxy with minx < maxx and miny < maxy")
    return left, bottom, right, top


def _box(left: float, bottom: float, right: float, top: float) -> dict[str, Any]:
    ring = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
    return {"type": "Polygon", "coordinates": [ring]}


def _from_file(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"--roi {path} is neither minx,miny,maxx,maxy nor a file. Give bounds or a GeoJSON file")
    try:
        found = list(_geometries(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise InputError(f"--roi {path} cannot be read as GeoJSON ({fault}). Check the file") from None
    if not found:
        raise InputError(f"--roi {path} holds no polygon. Give a GeoJSON file of Polygon or MultiPolygon features")
    return found


def _geometries(content: dict[str, Any]) -> list[dict[str, Any]]:
    kind = content["type"]
    if kind == "FeatureCollection":
        return [each for feature in content["features"] for each in _geometries(feature)]
    if kind == "Feature":
        return _geometries(content["geometry"])
    if kind == "GeometryCollection":
        return [each for geometry in content["geometries"] for each in _geometries(geometry)]
    if kind == "MultiPolygon":
        return [{"type": "Polygon", "coordinates": rings} for rings in content["coordinates"]]
    return [{"type": "Polygon", "coordinates": content["coordinates"]}] if kind == "Polygon" else []


def _check_rings(shape: dict[str, Any], roi: str) -> None:
    """InputError: not lists of points that end where they began, which GDAL would leave out in silence."""
    for ring in shape["coordinates"] if isinstance(shape["coordinates"], list) else [None]:
        if not isinstance(ring, list) or not all(_is_point(point) for point in ring):
            raise InputError(f"--roi {roi}: a polygon has no list of points. Check the GeoJSON file")
        if len(ring) < 4 or list(ring[0]) != list(ring[-1]):
            raise InputError(
                f"--roi {roi}: a ring of {len(ring)} points; four at least are due, the last like the first. Check the "
                f"GeoJSON file"
            )


def _is_point(point: Any) -> bool:
    return isinstance(point, list | tuple) and len(point) > 1 and all(isinstance(value, int | float) for value in point)


def _dense(shape: dict[str, Any]) -> dict[str, Any]:
    """The same with points along its edges, which are straight here and need not be in other coordinates."""
    return {"type": "Polygon", "coordinates": [_dense_ring(ring) for ring in shape["coordinates"]]}


def _dense_ring(ring: Sequence[Any]) -> list[Any]:
    corners = np.array([point[:2] for point in ring], np.float64)
    steps = np.linspace(0, 1, max(1, MOST_POINTS // len(corners)) if len(corners) < MOST_POINTS else 1, endpoint=False)
    between = corners[:-1, None] + (corners[1:] - corners[:-1])[:, None] * steps[:, None]
    return [*map(tuple, between.reshape(-1, 2).tolist()), tuple(corners[-1].tolist())]


def _crs(name: str) -> CRS:
    try:
        return CRS.from_user_input(name)
    except CRSError as fault:
        raise InputError(f"--roi-crs {name} is no CRS ({fault}). Give one like EPSG:4326") from None


def _moved(shape: dict[str, Any], source: CRS, target: CRS, roi: str) -> dict[str, Any]:
    try:
        moved = dict(transform_geom(source, target, shape))
    except Exception as fault:  # GDAL's own errors have no class in rasterio's interface
        if not isinstance(fault, (RasterioError, CRSError, ValueError)) and "CPLE" not in type(fault).__name__:
            raise
        raise InputError(f"--roi {roi} cannot be brought to the scene's CRS ({fault}). Check --roi-crs") from None
    if moved["type"] != "Polygon":
        raise InputError(f"--roi {roi} is cut in the scene's CRS, at the antimeridian perhaps. Give it in that CRS")
    return moved


def _mapped(shape: dict[str, Any], transform: Affine) -> dict[str, Any]:
    try:
        rings = [[tuple(transform @ (point[0], point[1])) for point in ring] for ring in shape["coordinates"]]
    except (TypeError, IndexError) as fault:
        raise InputError(f"--roi: a polygon has no list of points ({fault}). Check the GeoJSON file") from None
    return {"type": "Polygon", "coordinates": rings}


def _window(shapes: list[dict[str, Any]], size: tuple[int, int], roi: str, scene: Path) -> Window:
    points = np.array([point for shape in shapes for ring in shape["coordinates"] for point in ring], np.float64)
    if not len(points) or not np.isfinite(points).all():
        raise InputError(f"--roi {roi} does not lie on the map of {scene}. Check --roi-crs")
    low, high = np.floor(points.min(0) + ROUNDING).astype(int), np.ceil(points.max(0) - ROUNDING).astype(int)
    if (points.max(0) - points.min(0) <= ROUNDING).any():
        raise InputError(f"--roi {roi} has no area. Give one that is wider and higher than nothing")
    left, top = max(0, int(low[0])), max(0, int(low[1]))
    right, bottom = min(size[1], int(high[0])), min(size[0], int(high[1]))
    if left >= right or top >= bottom:
        raise InputError(
            f"--roi {roi} lies outside {scene}: columns {low[0]} to {high[0]} and rows {low[1]} to {high[1]} of a "
            f"scene of {size[1]} x {size[0]} px. Check the coordinates and --roi-crs"
        )
    return Window(top, left, bottom - top, right - left)

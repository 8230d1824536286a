"""The areas of one class in a map as polygons, in a GeoJSON file or a GeoPackage, which keeps the CRS of the map.

GeoJSON knows longitude and latitude only (RFC 7946), so a map with a CRS is brought there; one without keeps its own
coordinates, which the file says. Memory grows with the number of areas, not with the map.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import rasterio
from rasterio.features import shapes
from rasterio.warp import transform_geom

from geospatial.geopackage import write_geopackage
from geospatial.raster import rasterio_faults
from geospatial.scene_place import LONGITUDE_LATITUDE
from mmzoo.durable_files import refused_writes_named, replacing
from mmzoo.errors import InputError

AT_ONCE = 1000  #: polygons that are brought to other coordinates together
FORMATS = ("geojson", "gpkg")


def polygon_file(target: Path, given: str) -> Path:
    """Where polygons go: the file named, or, for "geojson" alone, beside the map. InputError: another format."""
    path = target.with_suffix(f".{given}") if given in FORMATS else Path(given)
    if path.suffix.lower().lstrip(".") not in FORMATS:
        raise InputError(f"--polygons {given}: polygons are written as {', '.join(FORMATS)}. Name such a file")
    return path


def write_polygons(target: Path, given: str, names: Sequence[str]) -> Path:
    """Writes the areas of the class map `target`, 4-connected, with `class` and `name`; returns the file."""
    path = polygon_file(target, given)
    with refused_writes_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with (
        rasterio_faults(target),
        rasterio.open(target) as file,
        refused_writes_named(path),
        replacing(path) as temporary,
    ):
        if path.suffix.lower() == ".gpkg":
            areas = ((shape, number, names[number]) for shape, number in _areas(file, names))
            write_geopackage(temporary, areas, file.crs)
        else:
            _write_collection(temporary, file, names)
    return path


def _areas(file: Any, names: Sequence[str]) -> Iterator[tuple[dict[str, Any], int]]:
    """Outlines of the areas, in the coordinates of the map, and their class; not of what has none."""
    found = ((shape, int(value)) for shape, value in shapes(rasterio.band(file, 1), transform=file.transform))
    return (area for area in found if area[1] < len(names))


def _write_collection(path: Path, file: Any, names: Sequence[str]) -> None:
    note = "" if file.crs is not None else '"note": "the map has no CRS: columns and rows of its grid", '
    with path.open("w", encoding="utf-8") as stream:
        stream.write('{"type": "FeatureCollection", ' + note + '"features": [')
        between = "\n"
        for feature in _features(file, names):
            stream.write(between + json.dumps(feature))
            between = ",\n"
        stream.write("\n]}\n")


def _features(file: Any, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    areas = _areas(file, names)
    while some := list(islice(areas, AT_ONCE)):
        outlines: Any = [shape for shape, _ in some]
        if file.crs is not None:
            outlines = transform_geom(file.crs, LONGITUDE_LATITUDE, outlines)
        for outline, (_, number) in zip(outlines, some, strict=True):
            properties = {"class": number, "name": names[number]}
            yield {"type": "Feature", "properties": properties, "geometry": dict(outline)}

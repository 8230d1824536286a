"""Polygons as a GeoPackage: an SQLite file with a few prescribed tables (OGC 12-128r19), so no library is needed.

rasterio's GDAL could write one, but rasterio has no way to vector files, and a second GDAL weighs 100 MB.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from rasterio.crs import CRS

from mmzoo.durable_files import NoSpaceError
from mmzoo.errors import InputError

APPLICATION, VERSION = 0x47504B47, 10300  #: "GPKG", 1.3.0
UNDEFINED, OWN = -1, 100000  #: numbers of reference systems: none at all, and one without a code
TABLES = """
CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER PRIMARY KEY, organization TEXT NOT NULL,
    organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT);
CREATE TABLE gpkg_contents (table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
    description TEXT DEFAULT '', last_change DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE,
    srs_id INTEGER REFERENCES gpkg_spatial_ref_sys(srs_id));
CREATE TABLE gpkg_geometry_columns (table_name TEXT NOT NULL UNIQUE REFERENCES gpkg_contents(table_name),
    column_name TEXT NOT NULL, geometry_type_name TEXT NOT NULL,
    srs_id INTEGER NOT NULL REFERENCES gpkg_spatial_ref_sys(srs_id), z TINYINT NOT NULL, m TINYINT NOT NULL,
    PRIMARY KEY (table_name, column_name));
CREATE TABLE areas (fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom POLYGON, class INTEGER, name TEXT);
"""


def write_geopackage(path: Path, areas: Iterable[tuple[dict[str, Any], int, str]], crs: CRS | None) -> None:
    """Writes (GeoJSON polygon in `crs`, class, name) as the layer "areas". InputError: it cannot be written."""
    number = _number_of(crs)
    bounds = [float("inf"), float("inf"), float("-inf"), float("-inf")]
    try:
        with closing(sqlite3.connect(path)) as database, database:
            database.executescript(f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};{TABLES}")
            database.executemany("INSERT INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?, ?, NULL)", _systems(crs))
            rows = _rows(areas, number, bounds)
            database.executemany("INSERT INTO areas (geom, class, name) VALUES (?, ?, ?)", rows)
            extent = bounds if bounds[0] <= bounds[2] else [None] * 4
            database.execute(
                "INSERT INTO gpkg_contents (table_name, data_type, identifier, min_x, min_y, max_x, max_y, srs_id) "
                "VALUES ('areas', 'features', 'areas', ?, ?, ?, ?, ?)",
                (*extent, number),
            )
            database.execute(
                "INSERT INTO gpkg_geometry_columns VALUES ('areas', 'geom', 'POLYGON', ?, 0, 0)", (number,)
            )
    except sqlite3.Error as fault:
        kind = NoSpaceError if "full" in str(fault) else InputError
        raise kind(f"{path} cannot be written ({fault}). Free space, or choose a writable folder") from None


def _number_of(crs: CRS | None) -> int:
    if crs is None:
        return UNDEFINED
    code = crs.to_authority()
    return int(code[1]) if code and code[1].isdigit() else OWN


def _systems(crs: CRS | None) -> list[tuple[str, int, str, int, str]]:
    """Three systems are prescribed, and that of the map is added."""
    degrees = CRS.from_epsg(4326)
    found = {
        UNDEFINED: ("Undefined cartesian", UNDEFINED, "NONE", UNDEFINED, "undefined"),
        0: ("Undefined geographic", 0, "NONE", 0, "undefined"),
        4326: ("WGS 84", 4326, "EPSG", 4326, degrees.to_wkt()),
    }
    if crs is not None:
        code, number = crs.to_authority(), _number_of(crs)
        name, organization = ("of the map", "NONE") if code is None or number == OWN else (":".join(code), code[0])
        found.setdefault(number, (name, number, organization, number, crs.to_wkt()))
    return list(found.values())


def _rows(
    areas: Iterable[tuple[dict[str, Any], int, str]], number: int, bounds: list[float]
) -> Iterator[tuple[bytes, int, str]]:
    """Rows of the table; widens `bounds` (west, south, east, north) on the way."""
    for shape, of_class, name in areas:
        rings = shape["coordinates"]
        xs, ys = zip(*rings[0], strict=True)
        box = min(xs), min(ys), max(xs), max(ys)
        bounds[:] = [*map(min, bounds[:2], box[:2]), *map(max, bounds[2:], box[2:])]
        yield polygon_blob(rings, number, box), of_class, name


def polygon_blob(rings: list[list[tuple[float, float]]], number: int, box: tuple[float, float, float, float]) -> bytes:
    """A polygon in GeoPackage's binary form: header with its bounds, then well-known binary, little-endian."""
    header = b"GP" + struct.pack("<BBi4d", 0, 0b011, number, box[0], box[2], box[1], box[3])
    parts = [header, struct.pack("<BII", 1, 3, len(rings))]
    for ring in rings:
        parts.append(struct.pack(f"<I{2 * len(ring)}d", len(ring), *(value for point in ring for value in point)))
    return b"".join(parts)

"""A STAC item beside a map: what it is, where it lies, when it was taken, and what its values mean.

Extensions: projection 2.0.0, classification 2.0.0. Those of radar (sar:*) ask for frequency band, polarisations and
product type, which a raster rarely says, so they are left out rather than guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from geospatial.raster import rasterio_faults
from geospatial.scene_map import class_colours
from geospatial.scene_place import Place
from mmzoo.durable_files import refused_writes_named, write_text
from mmzoo.errors import InputError

TIME_TAGS = ("ACQUISITIONDATETIME", "ACQUISITION_DATETIME", "DATETIME", "TIFFTAG_DATETIME")
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"


def acquisition_time(scene: Path, given: str | None) -> str:
    """When a scene was taken, RFC 3339 in UTC: as the user says, else as a tag of the file does. InputError: nobody."""
    if given is not None:
        return _utc(given, "--datetime")
    with rasterio_faults(scene), rasterio.open(scene) as file:
        tags = {name.upper(): value for name, value in file.tags().items()}
    for name in TIME_TAGS:
        if tags.get(name):
            return _utc(tags[name], f"{scene}: the tag {name}")
    raise InputError(
        f"{scene} does not say when it was taken, which --stac needs. Give --datetime 2020-11-07T02:00:00Z"
    )


def _utc(text: str, where: str) -> str:
    for form in (None, "%Y:%m:%d %H:%M:%S"):  # the second is TIFF's own
        try:
            moment = datetime.fromisoformat(text) if form is None else datetime.strptime(text, form)
        except ValueError:
            continue
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return moment.isoformat().replace("+00:00", "Z")
    raise InputError(f"{where} is no date and time: {text!r}. Give one like 2020-11-07T02:00:00Z")


def write_stac_item(
    target: Path, files: Mapping[str, Path], place: Place, names: Sequence[str], told: Mapping[str, str], taken: str
) -> Path:
    """Writes `map.json` beside `map.tif`; paths in it are relative to it. Returns the file."""
    path = target.with_suffix(".json")
    with rasterio_faults(target), rasterio.open(target) as file:
        size = int(file.height), int(file.width)
    with refused_writes_named(path):
        write_text(path, json.dumps(stac_item(target.stem, files, place, size, names, told, taken), indent=1) + "\n")
    return path


def stac_item(
    name: str,
    files: Mapping[str, Path],
    place: Place,
    size: tuple[int, int],
    names: Sequence[str],
    told: Mapping[str, str],
    taken: str,
) -> dict[str, Any]:
    """The item (STAC 1.0.0) of the map `name` of `size` px (height, width)."""
    properties: dict[str, Any] = {"datetime": taken, **{key.lower().replace("_", ":", 1): told[key] for key in told}}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [PROJECTION, CLASSIFICATION],
        "id": name,
        **_footprint(place, size),
        "properties": {**properties, **_projection(place, size)},
        "links": [],
        "assets": {key: _asset(key, path, names) for key, path in files.items()},
    }


def _footprint(place: Place, size: tuple[int, int]) -> dict[str, Any]:
    """Without a CRS nobody knows where the map lies."""
    if place.crs is None:
        return {"geometry": None}
    outline = place.in_degrees(place.outline(*size))
    parts = outline["coordinates"] if outline["type"] == "MultiPolygon" else [outline["coordinates"]]
    points = [np.array(rings[0]) for rings in parts]
    west, south, east, north = [*np.concatenate(points).min(0).tolist(), *np.concatenate(points).max(0).tolist()]
    if len(points) > 1:  # cut at the antimeridian: from the western edge of its eastern part on (RFC 7946, 5.2)
        west = min(float(part[:, 0].min()) for part in points if part[:, 0].max() > 0)
        east = max(float(part[:, 0].max()) for part in points if part[:, 0].min() < 0)
    return {"geometry": outline, "bbox": [west, south, east, north]}


def _projection(place: Place, size: tuple[int, int]) -> dict[str, Any]:
    found: dict[str, Any] = {"proj:shape": list(size), "proj:transform": list(place.transform)[:6]}
    if place.crs is None:
        return found
    code = place.crs.to_authority()
    return {
        **found,
        **({"proj:code": ":".join(code)} if code else {"proj:code": None, "proj:wkt2": place.crs.to_wkt()}),
    }


def _asset(layer: str, path: Path, names: Sequence[str]) -> dict[str, Any]:
    asset: dict[str, Any] = {"href": f"./{path.name}", "type": COG_TYPE, "title": layer, "roles": ["data"]}
    if layer == "classes":
        colours = class_colours(len(names))
        asset["classification:classes"] = [
            {"value": number, "name": name, "color_hint": "{:02X}{:02X}{:02X}".format(*colours[number][:3])}
            for number, name in enumerate(names)
        ]
    return asset

"""A scene file to a map file, with all that a map carries: the parts of `mmzoo segment` put together."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch

from data_engine.index import probe
from geospatial.raster import Raster, rasterio_faults
from geospatial.scene_layers import Layer
from geospatial.scene_making import IDENTITY_TAG, MapJob, MapModel, SegmentSettings, make_maps
from geospatial.scene_map import row_windows
from geospatial.scene_place import Place, place_of
from geospatial.scene_polygons import write_polygons
from geospatial.scene_roi import Region, find_region, whole_scene
from geospatial.scene_stac import acquisition_time, write_stac_item
from mmzoo import __version__
from mmzoo.errors import InputError


@dataclass(frozen=True)
class MapRecord:
    """A finished map: `pixels` of each class by name and `no_data`; `kept`: it was there already."""

    scene: str
    map: str
    files: list[str]
    kept: bool
    pixels: dict[str, int]
    no_data: int


def segment_scene(scene: Path, target: Path, model: MapModel, settings: SegmentSettings) -> MapRecord:
    """Writes the map of a scene and what goes with it. InputError: the scene, the region or the place to write to."""
    with Raster(scene, settings.raster) as raster:
        model.check(raster.domain, len(raster.bands), scene)
        place = place_of(scene)
        region = _region(settings, place, raster, scene)
        part = place.part(region.window)
        taken = acquisition_time(scene, settings.datetime) if settings.stac else None
        told = _told(scene, raster, region, settings, model)
        files = layer_files(target, model.layers)
        kept = _already_there(files.values(), told[IDENTITY_TAG], settings.overwrite)
        if not kept:
            _say_what_is_unusual(scene, place)
            make_maps(MapJob(raster, region, part, files, told), model, settings)
    beside = [write_polygons(target, settings.polygons, model.names)] if settings.polygons else []
    if taken is not None:
        beside.append(write_stac_item(target, files, part, model.names, told, taken))
    counts = class_counts(target)
    named = {name: int(counts[number]) for number, name in enumerate(model.names)}
    listed = [str(path) for path in (*files.values(), *beside)]
    return MapRecord(str(scene), str(target), listed, kept, named, int(counts[255]))


def _region(settings: SegmentSettings, place: Place, raster: Raster, scene: Path) -> Region:
    size = raster.height, raster.width
    if settings.roi is None:
        return whole_scene(*size)
    return find_region(settings.roi, settings.roi_crs, place, size, scene)


def layer_files(target: Path, layers: Sequence[Layer]) -> dict[str, Path]:
    """`map.tif` for the classes, `map_confidence.tif` and so on beside it."""
    return {
        layer.name: target if layer.name == "classes" else target.with_stem(f"{target.stem}_{layer.name}")
        for layer in layers
    }


def _told(scene: Path, raster: Raster, region: Region, settings: SegmentSettings, model: MapModel) -> dict[str, str]:
    """Tags of the map: what it was made from, and a hash of all that it depends on."""
    blend = settings.blend
    tags = {
        "MMZOO_VERSION": __version__,
        "MMZOO_MODEL": settings.model["model"],
        "MMZOO_MODEL_SHA256": settings.model["model_sha256"],
        "MMZOO_SCENE": scene.name,
        "MMZOO_DOMAIN": raster.domain,
        "MMZOO_TILES": f"{blend.crop} px, overlap {blend.overlap}, halo {blend.halo}, {blend.shape}",
        "MMZOO_DESCRIPTOR_SCOPE": settings.descriptor_scope,
        "MMZOO_WINDOW": f"row {region.window.top}, column {region.window.left}",
    }
    all_of_it: Any = [tags, probe(scene), region.window, region.shapes, repr(settings.raster), str(model.device)]
    layers = [[layer.name, layer.bands, layer.resampling] for layer in model.layers]
    # Another batch size changes the last bits of sums, which a map that goes on from an earlier run must not mix.
    text = json.dumps([all_of_it, layers, settings.batch, torch.__version__])
    return {**tags, IDENTITY_TAG: hashlib.sha256(text.encode()).hexdigest()}


def _already_there(files: Any, identity: str, overwrite: bool) -> bool:
    """Whether all files are maps of this identity. InputError: there is one of another, and it may not be replaced."""
    present = [path for path in files if path.exists()]
    for path in present:
        if not overwrite and _identity_of(path) != identity:
            raise InputError(f"{path} is there already, from other settings. Name another -o, or allow --overwrite")
    return not overwrite and len(present) == len(list(files))


def _identity_of(path: Path) -> str | None:
    with rasterio_faults(path), rasterio.open(path) as file:
        return file.tags().get(IDENTITY_TAG)


def _say_what_is_unusual(scene: Path, place: Place) -> None:
    if place.crs is None and place.gcps_crs is None:
        sys.stderr.write(f"note: {scene} has no CRS; neither will the map have one\n")
    elif place.is_rotated:
        sys.stderr.write(f"note: the rows of {scene} are rotated; the map keeps its grid\n")


def class_counts(path: Path) -> np.ndarray:
    """Pixels of each value (256,) of a class map."""
    counts = torch.zeros(256, dtype=torch.int64)
    with rasterio_faults(path), rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"), rasterio.open(path) as file:
        for window in row_windows(int(file.height), int(file.width)):
            counts += torch.bincount(torch.from_numpy(file.read(1, window=window)).flatten(), minlength=256)
    return counts.numpy()

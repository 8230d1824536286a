"""A scene file to a map file, with all that a map carries: the parts of `mmzoo segment` put together."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
import torch
from torch import Tensor

from data_engine.index import probe
from data_engine.progress import tracked
from geospatial.raster import Raster, RasterSettings, rasterio_faults
from geospatial.scene_inference import TileModel, stream, tile_batch
from geospatial.scene_layers import Layer
from geospatial.scene_map import write_map
from geospatial.scene_place import Place, place_of
from geospatial.scene_polygons import write_polygons
from geospatial.scene_reader import BandReader
from geospatial.scene_roi import Region, find_region, whole_scene
from geospatial.scene_stac import acquisition_time, write_stac_item
from geospatial.scene_tiles import Blend, ScenePlan, plan_scene
from geospatial.scene_work import SceneWork
from mmzoo import __version__
from mmzoo.errors import InputError

IDENTITY_TAG = "MMZOO_IDENTITY"
LEAST_CACHE = 64 * 2**20  #: bytes of GDAL's block cache


class MapModel(TileModel, Protocol):
    """A tile model with names for its classes and layers for its numbers."""

    names: list[str]
    layers: list[Layer]
    scene_descriptors: Tensor | None

    def check(self, domain: str, bands: int, path: Path) -> None:
        """InputError: it does not take such a raster."""
        ...

    def describe(self, values: Tensor, valid: Tensor) -> Tensor:
        """Descriptors (B, D) of tiles."""
        ...


@dataclass(frozen=True)
class SegmentSettings:
    """What a map depends on beside scene and model. `model`: {"model": its name, "model_sha256": of its weights}."""

    blend: Blend
    model: dict[str, str]
    raster: RasterSettings = field(default_factory=RasterSettings)
    roi: str | None = None
    roi_crs: str | None = None
    descriptor_scope: str = "tile"
    batch: int = 4
    overwrite: bool = False
    polygons: str | None = None
    stac: bool = False
    datetime: str | None = None


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
            _make(raster, region, part, target, files, model, settings, told)
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


def _make(
    raster: Raster,
    region: Region,
    place: Place,
    target: Path,
    files: dict[str, Path],
    model: MapModel,
    settings: SegmentSettings,
    told: dict[str, str],
) -> None:
    plan = plan_scene(region.window.height, region.window.width, settings.blend)
    folder = target.with_name(f".{target.name}.work")
    with SceneWork(folder, told[IDENTITY_TAG], model.layers, region.window.width) as work, gdal_limits(raster, plan):
        if work.done:
            sys.stderr.write(f"note: {target} goes on after row {work.done} of {region.window.height}\n")
        model.scene_descriptors = None
        if settings.descriptor_scope == "scene":
            model.scene_descriptors = scene_descriptors(raster, region, plan, model, settings.batch)
        if work.done < region.window.height:
            _fill(work, raster, region, plan, model, settings.batch)
        for layer in reversed(model.layers):  # the classes last: a map that is there has all that belongs to it
            write_map(files[layer.name], work, layer, place, told, model.names)
        work.remove()


def _fill(work: SceneWork, raster: Raster, region: Region, plan: ScenePlan, model: MapModel, batch: int) -> None:
    with BandReader(raster, region.window, plan.crop) as reader:
        bands = stream(plan, reader, model, batch, work.done)
        left = len(plan.rows.starts) - plan.first_needed(work.done)
        for band in tracked(bands, raster.path.name, left):
            valid = band.valid & region.inside(band.top, len(band.valid))
            work.append({layer.name: layer.rows(band.values, valid) for layer in model.layers})


def scene_descriptors(raster: Raster, region: Region, plan: ScenePlan, model: MapModel, batch: int) -> Tensor:
    """The mean (D,) of the descriptors of all tiles, each with the weight of its pixels that have data: one pass more
    over the scene.
    """
    total, weight = torch.zeros(0, dtype=torch.float64), 0.0
    starts, height = plan.rows.starts, plan.rows.length
    with BandReader(raster, region.window, plan.crop) as reader:
        for top in tracked(starts, "descriptors", len(starts)):
            pixels = reader.rows(top, min(top + plan.crop, height))
            for first in range(0, len(plan.columns.starts), batch):
                values, valid = tile_batch(pixels, plan.columns.starts[first : first + batch], plan.crop)
                counts = valid.sum((1, 2)).double()
                found = (model.describe(values, valid).cpu().double() * counts[:, None]).sum(0)
                total, weight = (found if not len(total) else total + found), weight + float(counts.sum())
    return (total / max(weight, 1.0)).float()


def gdal_limits(raster: Raster, plan: ScenePlan) -> rasterio.Env:
    """GDAL's cache for one band of the scene and its masks, whatever the memory of the machine; threads to unpack."""
    rows = plan.crop + min(raster.block_rows, 2 * plan.crop)
    band = 2 * rows * raster.width * len(raster.bands) * np.dtype(raster.dtype.replace("_int16", "64")).itemsize
    return rasterio.Env(GDAL_CACHEMAX=max(LEAST_CACHE, band), GDAL_NUM_THREADS="ALL_CPUS")


def class_counts(path: Path) -> np.ndarray:
    """Pixels of each value (256,) of a class map."""
    counts = np.zeros(256, np.int64)
    with rasterio_faults(path), rasterio.open(path) as file:
        for _, window in file.block_windows(1):
            counts += np.bincount(file.read(1, window=window).reshape(-1), minlength=256)
    return counts

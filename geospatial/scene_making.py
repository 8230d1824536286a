"""The rows of a scene through a model to the disk, then each layer of the map from them: three things at a time, rows
that are read, rows that the model looks at, and rows that are written.
"""

from __future__ import annotations

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import rasterio
import torch
from torch import Tensor

from data_engine.progress import tracked
from geospatial.raster import Raster, RasterSettings
from geospatial.scene_inference import TileModel, stream, tile_batch
from geospatial.scene_layers import Layer
from geospatial.scene_map import write_map
from geospatial.scene_place import Place
from geospatial.scene_reader import BandReader
from geospatial.scene_roi import Region
from geospatial.scene_tiles import Blend, ScenePlan, plan_scene
from geospatial.scene_work import SceneWork

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


class MapJob(NamedTuple):
    """A `region` of an open scene, the `place` of that part, the file of each layer by name, and what they tell."""

    raster: Raster
    region: Region
    place: Place
    files: dict[str, Path]
    told: dict[str, str]

    def plan(self, blend: Blend) -> ScenePlan:
        """The tiles of the region."""
        return plan_scene(self.region.window.height, self.region.window.width, blend)


def make_maps(job: MapJob, model: MapModel, settings: SegmentSettings) -> None:
    """Writes the files of a job. InputError: the scene, or the place to write to; the next run goes on from there."""
    plan, window, target = job.plan(settings.blend), job.region.window, job.files["classes"]
    folder = target.with_name(f".{target.name}.work")
    with (
        SceneWork(folder, job.told[IDENTITY_TAG], model.layers, window.width) as work,
        gdal_limits(job.raster, plan),
    ):
        if work.done:
            sys.stderr.write(f"note: {target} goes on after row {work.done} of {window.height}\n")
        model.scene_descriptors = None
        if settings.descriptor_scope == "scene":
            model.scene_descriptors = scene_descriptors(job, plan, model, settings.batch)
        if work.done < window.height:
            _fill(work, job, plan, model, settings.batch)
        for layer in reversed(model.layers):  # the classes last: a map that is there has all that belongs to it
            write_map(job.files[layer.name], work, layer, job.place, job.told, model.names)
        work.remove()


def _fill(work: SceneWork, job: MapJob, plan: ScenePlan, model: MapModel, batch: int) -> None:
    written: Future[None] | None = None
    left = len(plan.rows.starts) - plan.first_needed(work.done)
    with BandReader(job.raster, job.region.window, plan.crop) as reader, ThreadPoolExecutor(1, "rows") as writer:
        for band in tracked(stream(plan, reader, model, batch, work.done), job.raster.path.name, left):
            valid = band.valid & job.region.inside(band.top, len(band.valid)) if job.region.shapes else band.valid
            rows = {layer.name: layer.rows(band.values, valid) for layer in model.layers}
            if written is not None:
                written.result()
            written = writer.submit(work.append, rows)
        if written is not None:
            written.result()


def scene_descriptors(job: MapJob, plan: ScenePlan, model: MapModel, batch: int) -> Tensor:
    """The mean (D,) of the descriptors of all tiles, each with the weight of its pixels that have data: one pass more
    over the scene.
    """
    total, weight = torch.zeros(0, dtype=torch.float64), 0.0
    starts, height = plan.rows.starts, plan.rows.length
    with BandReader(job.raster, job.region.window, plan.crop) as reader:
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

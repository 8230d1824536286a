"""What no way from a scene to its map can leave out: to read the file once, and the model's forward of every tile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from geospatial.scene_tiles import Blend, plan_scene
from tests.benchmarks.scene_case import BATCH, CheapModel

ROWS = 512  #: px at once


def read_once(scene: Path) -> None:
    """All rows of a raster into one array that is there already, on all cores."""
    with rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"), rasterio.open(scene) as file:
        rows = np.zeros((file.count, ROWS, file.width), np.float32)
        for top in range(0, file.height, ROWS):
            count = min(ROWS, file.height - top)
            file.read(out=rows[:, :count], window=Window(0, top, file.width, count))


def forward_only(blend: Blend, side: int) -> None:
    """The model on as many batches as a scene of `side` px has, of one batch that stays in memory."""
    model, tiles = CheapModel(), plan_scene(side, side, blend).tiles
    values = torch.rand(BATCH, 2, blend.crop, blend.crop)
    valid = torch.ones(BATCH, blend.crop, blend.crop, dtype=torch.bool)
    for first in range(0, tiles, BATCH):
        count = min(BATCH, tiles - first)
        model.predict(values[:count], valid[:count])

"""A scene by TerraTorch's tiled_inference: all of it, all tiles and all answers in memory, its own cosine blending."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rasterio
import torch

from geospatial.scene_tiles import Blend
from tests.benchmarks.peers.scene_loops import write_class_map


def terratorch_map(path: Path, target: Path, blend: Blend, model: Any, batch: int) -> None:
    """The map of a scene; `delta` is what we call halo."""
    from terratorch.tasks.tiled_inference import tiled_inference

    with rasterio.open(path) as file:
        values = torch.from_numpy(file.read())[None]

    def forward(tiles: torch.Tensor) -> torch.Tensor:
        return model.predict(tiles, torch.ones_like(tiles[:, 0], dtype=torch.bool))

    tiling = {"crop": blend.crop, "stride": blend.stride, "delta": blend.halo, "batch_size": batch}
    scores = tiled_inference(forward, values, **tiling)
    write_class_map(path, target, scores[0].argmax(0).to(torch.uint8).numpy())

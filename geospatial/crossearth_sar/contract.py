"""What the family contract test runs CrossEarth-SAR with: small inputs, what to compare, what to minimise."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning
from torch import Tensor

from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.modeling import CrossEarthSAROutput

#: Outputs whose first dimension is the batch: each must not depend on what else is in the batch.
PER_SAMPLE_OUTPUTS = ("last_hidden_state", "descriptors", "expert_choice")
#: Configuration arguments, beside those of the tiny variant, with which one batch is learnt by heart in 60 steps.
OVERFIT_SETTINGS: dict[str, Any] = {}
BALANCE_WEIGHT = 0.005  # lambda of the paper


def example_batch(config: CrossEarthSARConfig, batch_size: int, seed: int) -> dict[str, Tensor]:
    """Patches of a few brightnesses under single-look speckle, normalised (B, 3, S, S), S = config.image_size."""
    random = torch.Generator().manual_seed(seed)
    reflectivity = torch.rand(batch_size, 1, 4, 4, generator=random) * 0.5 + 0.05
    size = (config.image_size, config.image_size)
    scene = torch.nn.functional.interpolate(reflectivity, size=size, mode="nearest")
    speckle = -torch.rand(scene.shape, generator=random).clamp(min=1e-6).log()
    amplitude = (scene * speckle).sqrt().clamp(max=1).expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (config.image_mean, config.image_std))
    return {"pixel_values": (amplitude - mean) / std}


def objective(output: CrossEarthSAROutput, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The loss to minimise, and the part of it that must fall: each patch's mean brightness, told by its token."""
    height, width = output.feature_maps[-1].shape[-2:]
    wanted = torch.nn.functional.adaptive_avg_pool2d(batch["pixel_values"], (height, width))
    error = (output.feature_maps[-1][:, :3] - wanted).square().mean()
    balance = output.balance_sum.mean() / output.routed_tokens
    return error + BALANCE_WEIGHT * balance, error


def training_config(index: Path) -> dict[str, Any]:
    """The `model` and `data` sections of a short training, on rasters written beside `index` (image shards are of no
    use here), with all that a resume could lose: random points of the loss, moments and a schedule, random windows.
    """
    folder = index.parent / "labelled_rasters"
    for number in range(5):
        _write_labelled_raster(folder, number)
    head = {"width": 32, "queries": 8, "heads": 4, "encoder_layers": 1, "decoder_layers": 2, "points": 64}
    classes = {0: "land", 1: "water"}
    return {
        "model": {
            "class_path": "geospatial.crossearth_sar.training.CrossEarthSARSegmentation",
            "init_args": {
                "classes": classes,
                "overrides": {"domain": "amplitude", "value_range": [0, 2]},
                "head": "mask2former",
                "head_settings": {**head, "encoder_hidden": 64, "decoder_hidden": 64},
                "class_weights": [1.0, 1.5],
                "optimizer": {"name": "adamw", "lr": 1e-3, "warmup_steps": 2, "schedule": "cosine"},
            },
        },
        "data": {
            "class_path": "geospatial.raster_data.RasterData",
            "init_args": {
                "sources": [{"images": str(folder / "images"), "masks": str(folder / "masks"), "domain": "amplitude"}],
                "classes": classes,
                "window": 32,
                "global_batch": 4,
                "steps_per_epoch": 2,
                "augmentation": {"brightness": 0.3, "contrast": 0.3},
            },
        },
    }


def _write_labelled_raster(folder: Path, number: int) -> None:
    """One 48 x 56 px amplitude raster, single look, dark water in its mask."""
    random = np.random.default_rng(number)
    water = np.kron(random.random((6, 7)) < 0.4, np.ones((8, 8), bool))
    amplitude = np.sqrt(random.exponential(np.where(water, 0.05, 0.6))).astype(np.float32)
    for kind, values in (("images", amplitude), ("masks", water.astype(np.uint8))):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        size = {"count": 1, "height": 48, "width": 56, "dtype": values.dtype}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(folder / kind / f"{number}.tif", "w", driver="GTiff", **size) as file:
                file.write(values, 1)

"""What CrossEarth-SAR's demo measures: scenes that no training saw, of known radars and of a new one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geospatial.brightness_baseline import BrightnessClasses
from geospatial.class_masks import ClassMask, ClassTable
from geospatial.confusion import confusion_matrix
from geospatial.crossearth_sar.modeling import CrossEarthSAROutput
from geospatial.crossearth_sar.scaling import normalized
from geospatial.crossearth_sar.segmentation_model import CrossEarthSARForSegmentation
from geospatial.raster import Raster, RasterSettings


@dataclass(frozen=True)
class Scene:
    """`values` float32 (H, W) in dB, `valid` bool (H, W), `labels` uint8 (H, W)."""

    name: str
    values: np.ndarray
    valid: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Routing:
    """What the routers of D blocks did with the scenes of one sensor: expert_counts (D, n), entropy (D,) in nats a
    token, descriptors (tiles, 3) as the routers get them.
    """

    expert_counts: np.ndarray
    entropy: np.ndarray
    descriptors: np.ndarray


@dataclass(frozen=True)
class Measured:
    """One model on the scenes of one sensor: confusion matrices (N, K, K), class maps (H, W) of each, and routing."""

    matrices: np.ndarray
    maps: list[np.ndarray]
    routing: Routing


def read_scenes(pairs: Iterable[tuple[Path, Path]], table: ClassTable) -> list[Scene]:
    """The first band of each image with its mask."""
    return [_read_scene(image, mask, table) for image, mask in pairs]


def _read_scene(image: Path, mask: Path, table: ClassTable) -> Scene:
    with Raster(image, RasterSettings(bands=(1,))) as raster:
        pixels = raster.read()
    truth = ClassMask(mask, table, pixels.valid.shape, image)
    try:
        return Scene(image.stem, pixels.values[0], pixels.valid, truth.read())
    finally:
        truth.close()


def tiles_of(scene: Scene, model: CrossEarthSARForSegmentation) -> dict[str, Tensor]:
    """The scene cut into tiles of the model's size, as the image processor would give them, row by row.

    ValueError: a side that is no multiple of it.
    """
    size, (height, width) = model.config.image_size, scene.valid.shape
    if height % size or width % size:
        raise ValueError(f"a scene of {height} x {width} px is not made of tiles of {size} px")
    values, valid = (_cut(torch.from_numpy(part), size) for part in (scene.values, scene.valid))
    return {"pixel_values": normalized(values[:, None].expand(-1, 3, -1, -1), valid, model.config), "valid": valid}


def _cut(image: Tensor, size: int) -> Tensor:
    """(H, W) -> (tiles, size, size)."""
    return image.unfold(0, size, size).unfold(1, size, size).reshape(-1, size, size)


def joined(tiles: Tensor, shape: tuple[int, int]) -> Tensor:
    """(tiles, size, size) as `_cut` gives them -> (H, W)."""
    size = tiles.shape[-1]
    return tiles.reshape(shape[0] // size, shape[1] // size, size, size).movedim(2, 1).reshape(shape)


@torch.inference_mode()
def measure(model: CrossEarthSARForSegmentation, scenes: list[Scene]) -> Measured:
    """The model on scenes of one sensor, tile by tile."""
    classes = len(model.config.class_names or ())
    matrices, maps, encoded = [], [], []
    for scene in scenes:
        output = model(**tiles_of(scene, model))
        size = (model.config.image_size, model.config.image_size)
        found = model.head.scores(output.head, size).argmax(1)
        maps.append(joined(found, scene.valid.shape).to(torch.uint8).numpy())
        matrices.append(confusion_matrix(scene.labels, maps[-1], classes))
        encoded.append(output.encoder)
    return Measured(np.stack(matrices), maps, _routing(encoded))


def _routing(encoded: list[CrossEarthSAROutput]) -> Routing:
    tokens = sum(each.routed_tokens for each in encoded)
    counts = torch.stack([each.expert_counts for each in encoded]).sum(0)
    entropy = torch.stack([each.entropy_sum for each in encoded]).sum(0) / tokens
    return Routing(counts.numpy(), entropy.numpy(), torch.cat([each.descriptors for each in encoded]).numpy())


def measure_baselines(baseline: BrightnessClasses, scenes: list[Scene], classes: int) -> dict[str, np.ndarray]:
    """Confusion matrices (N, K, K) of thresholds on brightness, and of one class everywhere."""
    constant = [np.full_like(scene.labels, baseline.majority) for scene in scenes]
    bright = [baseline.labels(scene.values) for scene in scenes]
    return {
        name: np.stack(
            [confusion_matrix(scene.labels, found, classes) for scene, found in zip(scenes, maps, strict=True)]
        )
        for name, maps in (("brightness", bright), ("majority", constant))
    }

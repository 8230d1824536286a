"""From a scene to the model's input: random windows with the family's augmentations, or a tile as it is (spec 2.2).

The family's recipe resizes a picture by a random factor and crops it; here the window is read at the size that gives
the same, straight from the file. All chance comes from the sample's generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_engine.records import Sample
from geospatial.class_masks import IGNORE
from geospatial.raster import Pixels, Window
from geospatial.raster_index import Scene, Tile
from mmzoo.errors import InputError


@dataclass(frozen=True)
class Augmentation:
    """scale_min, scale_max: of the enlargement, drawn evenly in its logarithm. flip_horizontal, flip_vertical:
    probabilities; a flip turns the look direction of a radar round. max_class_share: a window where one class covers
    more of the labelled pixels is drawn again, up to `tries` times. brightness, contrast: largest shift, in standard
    deviations of the normalisation, and largest relative change; the family's are 0.56 (32 of 57 levels) and 0.5.
    """

    scale_min: float = 0.5
    scale_max: float = 2.0
    flip_horizontal: float = 0.5
    flip_vertical: float = 0.0
    max_class_share: float = 0.75
    tries: int = 10
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale_min <= self.scale_max:
            raise InputError(
                f"augmentation: need 0 < scale_min <= scale_max, not {self.scale_min} and {self.scale_max}"
            )
        for name in ("flip_horizontal", "flip_vertical", "max_class_share", "contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augmentation: {name} must be in 0 to 1, not {getattr(self, name)}")
        if self.tries < 1 or self.brightness < 0:
            raise InputError("augmentation: tries must be at least 1 and brightness not negative")


@dataclass(frozen=True)
class TrainingWindow:
    """A random window of a training scene, or the tile of a validation row, `size` px a side.

    {"image": float32 (C, S, S) in the raster's own units, 0 where not valid, "valid": bool (S, S), "labels": int64
    (S, S), IGNORE where not labelled, "weight", "gain", "shift": floats, "domain", "role": strings}. A normalised image
    x is to become gain * x + shift.
    """

    size: int
    augmentation: Augmentation

    def __call__(self, sample: Sample, random: np.random.Generator) -> dict[str, Any]:
        scene: Scene = sample.fields["scene"]
        window, side, labels = self._window(scene, random)
        image, valid, classes = fitted(scene.read(window), labels, side, self.size)
        given = self.augmentation
        across, down, gain, shift = random.random(4)
        flipped = [axis for axis, chance, share in _flips(given, across, down) if chance < share]
        if flipped:
            image, valid, classes = (part.flip(flipped) for part in (image, valid, classes))
        jitter = {"gain": 1 + given.contrast * (2 * gain - 1), "shift": given.brightness * (2 * shift - 1)}
        return {"image": image, "valid": valid, "labels": classes, **jitter, **_told(sample)}

    def window_of(self, sample: Sample, random: np.random.Generator) -> Window:
        """The window of the raster that `self(sample, random)` reads, for `mmzoo data why`."""
        return self._window(sample.fields["scene"], random)[0]

    def _window(self, scene: Scene, random: np.random.Generator) -> tuple[Window, int, np.ndarray]:
        """The first drawn window in which no class covers too much, or the last one tried; see `_drawn`; its labels."""
        for left in reversed(range(self.augmentation.tries)):
            window, side = self._drawn(scene.size, *random.random(3))
            labels = scene.labels(window)
            if left == 0 or largest_share(labels) <= self.augmentation.max_class_share:
                return window, side, labels
        raise AssertionError("the last try is taken")

    def _drawn(self, size: tuple[int, int], scale: float, down: float, right: float) -> tuple[Window, int]:
        """A window, and how many px of the raster `self.size` px of the result stand for: more than a small one has."""
        low, high = math.log(self.augmentation.scale_min), math.log(self.augmentation.scale_max)
        side = max(1, round(self.size / math.exp(low + scale * (high - low))))
        height, width = min(side, size[0]), min(side, size[1])
        top, left = int(down * (size[0] - height + 1)), int(right * (size[1] - width + 1))
        return Window(top, left, height, width), side


def _flips(given: Augmentation, across: float, down: float) -> list[tuple[int, float, float]]:
    return [(-1, across, given.flip_horizontal), (-2, down, given.flip_vertical)]


@dataclass(frozen=True)
class ValidationTile:
    """A tile as it is, padded to `size` px; labels that belong to another tile are IGNORE. Keys as TrainingWindow."""

    size: int

    def __call__(self, sample: Sample, random: np.random.Generator) -> dict[str, Any]:
        del random
        scene: Scene = sample.fields["scene"]
        tile: Tile = sample.fields["tile"]
        labels = scene.labels(tile.window)
        labels[: tile.own_top] = IGNORE
        labels[:, : tile.own_left] = IGNORE
        image, valid, classes = fitted(scene.read(tile.window), labels, self.size, self.size)
        told = _told(sample)
        return {"image": image, "valid": valid, "labels": classes, "gain": 1.0, "shift": 0.0, **told}


def _told(sample: Sample) -> dict[str, Any]:
    told = {name: str(sample.meta[name]) for name in ("domain", "role")}
    return {"weight": float(sample.meta["weight"]), "source": sample.source, **told}


def largest_share(labels: np.ndarray) -> float:
    """Share of the most frequent class among the labelled pixels; 1 where none is labelled."""
    counts = np.bincount(labels.reshape(-1), minlength=IGNORE + 1)[:IGNORE]
    return float(counts.max() / counts.sum()) if counts.any() else 1.0


def fitted(pixels: Pixels, labels: np.ndarray, side: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """A window resized by size / side and padded at the right and below to (size, size) px.

    Image bilinear over the valid pixels only, so that what has no data spreads nowhere; masks and labels nearest.
    Pixels without data have no label.
    """
    valid = torch.from_numpy(pixels.valid)
    image = torch.where(valid, torch.from_numpy(pixels.values), 0)
    classes = torch.from_numpy(labels.astype(np.int64))
    if side != size:
        image, valid, classes = resized(image, valid, classes, size / side)
    room = (0, size - image.shape[-1], 0, size - image.shape[-2])
    classes = torch.where(valid, classes, IGNORE)
    return F.pad(image, room), F.pad(valid, room), F.pad(classes, room, value=IGNORE)


def resized(image: Tensor, valid: Tensor, classes: Tensor, factor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Image (C, H, W), valid bool and classes int64 (H, W), `factor` times as large."""
    size = [max(1, round(side * factor)) for side in valid.shape]
    known = valid[None, None].float()
    options: dict[str, Any] = {"size": size, "mode": "bilinear", "align_corners": False, "antialias": factor < 1}
    weight = F.interpolate(known, **options)
    smooth = F.interpolate(image[None] * known, **options) / weight.clamp_min(1e-6)
    masks = torch.stack([valid.float(), classes.float()])[None]
    valid_, classes_ = F.interpolate(masks, size=size, mode="nearest-exact")[0]
    return torch.where(valid_ > 0, smooth[0], 0), valid_ > 0, classes_.long()

"""The class map of a raster: windows side by side, each pixel from one window, so that every model is asked alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from geospatial.raster import Pixels, Window, tiles
from mmzoo.errors import InputError
from mmzoo.families import get_family, load_object


@dataclass(frozen=True)
class MapMaker:
    """A model with `segment(pixel_values, valid=)` -> class probabilities (B, K, H, W), and its image processor.

    window: px a side; batch: windows at once, which changes no map but by float rounding.
    """

    model: Any
    window: int
    batch: int
    device: str

    @classmethod
    def of(cls, model: Any, window: int | None, batch: int, device: str) -> MapMaker:
        """InputError: a model that makes no class maps, or one without a size of its own."""
        config = model.config
        if not callable(getattr(model, "segment", None)) or not getattr(config, "class_names", None):
            raise InputError(
                f"the suite sar_segmentation measures segmentation models; this {config.model_type} makes no class "
                f"maps. Give a run's checkpoint with a head"
            )
        size = window or getattr(config, "image_size", None)
        if not isinstance(size, int):
            raise InputError("the model's configuration has no image_size. Give --window")
        return cls(model, size, batch, device)

    @torch.inference_mode()
    def classes(self, pixels: Pixels, domain: str) -> np.ndarray:
        """uint8 (H, W) of a raster whose values are in `domain`. InputError: bands or a domain that do not fit."""
        processor = load_object(get_family(self.model.config.model_type).processor).for_config(self.model.config)
        height, width = pixels.valid.shape
        places = tiles(height, width, self.window)
        result = np.empty((height, width), np.uint8)
        for start in range(0, len(places), self.batch):
            windows = places[start : start + self.batch]
            given = processor([self._padded(pixels, window) for window in windows], domain=domain)
            found = self.model.segment(given["pixel_values"].to(self.device), valid=given["valid"].to(self.device))
            _paste(result, windows, found.argmax(1).to(torch.uint8).cpu().numpy())
        return result

    def _padded(self, pixels: Pixels, window: Window) -> np.ndarray:
        """A window (C, size, size), NaN where there is no data and beyond the raster."""
        rows, columns = slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)
        values = np.where(pixels.valid[rows, columns], pixels.values[:, rows, columns], np.float32(np.nan))
        rest = ((0, 0), (0, self.window - window.height), (0, self.window - window.width))
        return np.pad(values, rest, constant_values=np.nan)


def _paste(result: np.ndarray, windows: Sequence[Window], found: np.ndarray) -> None:
    """Windows in reading order: where the last one of a row was moved back inside, it has the last word."""
    for window, classes in zip(windows, found, strict=True):
        rows, columns = slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)
        result[rows, columns] = classes[: window.height, : window.width]

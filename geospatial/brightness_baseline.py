"""The segmentation to beat: thresholds on smoothed brightness, and one class everywhere.

For each decibel of the smoothed image the class that is most frequent there: no set of thresholds does better on the
scenes that it was fitted to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from geospatial.class_masks import IGNORE
from geospatial.sar.speckle import SpeckleFilter, despeckle

LOWEST, HIGHEST = -45, 20  #: dB; what is beyond belongs to the last decibel
WINDOW = 5  #: px a side


def smoothed(decibels: np.ndarray) -> np.ndarray:
    """(H, W) dB -> the mean power of the window around each pixel, in dB."""
    image = torch.from_numpy(np.ascontiguousarray(decibels, np.float32))[None, None]
    return despeckle(image, "db", SpeckleFilter("boxcar", looks=1, window=WINDOW))[0, 0].numpy()


def bins_of(decibels: np.ndarray) -> np.ndarray:
    """Which decibel a value lies in, counted from LOWEST, where NaN lies too; int64, the shape of the input."""
    known = np.nan_to_num(decibels, nan=LOWEST, posinf=HIGHEST, neginf=LOWEST)
    return np.floor(np.clip(known, LOWEST, HIGHEST - 1)).astype(np.int64) - LOWEST


@dataclass(frozen=True)
class BrightnessClasses:
    """`of_bin` uint8 (HIGHEST - LOWEST,): the class of each decibel; `majority`: the most frequent class of all."""

    of_bin: np.ndarray
    majority: int

    @classmethod
    def fitted(cls, scenes: Iterable[tuple[np.ndarray, np.ndarray]], classes: int) -> BrightnessClasses:
        """From (dB (H, W), labels (H, W)). A decibel that no labelled pixel has gets the class of the nearest one."""
        counts = np.zeros((HIGHEST - LOWEST, classes), np.int64)
        for decibels, labels in scenes:
            known = labels != IGNORE
            np.add.at(counts, (bins_of(smoothed(decibels))[known], labels[known]), 1)
        seen = np.flatnonzero(counts.sum(1))
        if not len(seen):
            raise ValueError("no labelled pixel to fit thresholds to")
        nearest = seen[np.abs(np.arange(len(counts))[:, None] - seen).argmin(1)]
        return cls(counts.argmax(1)[nearest].astype(np.uint8), int(counts.sum(0).argmax()))

    def labels(self, decibels: np.ndarray) -> np.ndarray:
        """(H, W) dB -> classes uint8 (H, W)."""
        return self.of_bin[bins_of(smoothed(decibels))]

"""The study's simplest rival: one threshold on the smoothed picture, the best of all there are on the training set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

LEVELS = 256  #: of the display scale
SMOOTHING = 7  #: px a side of the mean
IGNORE = 255


class Threshold(NamedTuple):
    """Class 1 lies below `level` (or from it up, if not `dark`); `miou` is what that scores where it was chosen."""

    level: int
    dark: bool
    miou: float

    def classes(self, values: np.ndarray) -> np.ndarray:
        """uint8 (H, W), 0 or 1."""
        return ((values < self.level) == self.dark).astype(np.uint8)


def smoothed(picture: np.ndarray) -> np.ndarray:
    """(H, W) -> the mean of the SMOOTHING x SMOOTHING px around each pixel, of those that exist at the borders."""
    sums = _window_sums(picture.astype(np.float64))
    return sums / _window_sums(np.ones_like(sums))


def _window_sums(values: np.ndarray) -> np.ndarray:
    reach = SMOOTHING // 2
    table = np.pad(values, ((reach + 1, reach), (reach + 1, reach))).cumsum(0).cumsum(1)
    return (
        table[SMOOTHING:, SMOOTHING:]
        - table[:-SMOOTHING, SMOOTHING:]
        - table[SMOOTHING:, :-SMOOTHING]
        + (table[:-SMOOTHING, :-SMOOTHING])
    )


def best_threshold(training: Iterable[tuple[np.ndarray, np.ndarray]]) -> Threshold:
    """Over (values in 0 to 255, labels) of (H, W) each: the whole number and side with the largest mean IoU.

    ValueError: no pixel of one of the two classes.
    """
    counts = np.zeros((2, LEVELS), np.int64)
    for values, labels in training:
        bins = np.clip(values, 0, LEVELS - 1).astype(np.int64)
        for number in (0, 1):
            counts[number] += np.bincount(bins[labels == number], minlength=LEVELS)
    totals = counts.sum(1)
    if not totals.all():
        raise ValueError("a threshold needs pixels of both classes to be chosen on")
    below = np.concatenate([np.zeros((2, 1), np.int64), counts.cumsum(1)], 1)  # (2, levels + 1): values < level
    found = []
    for dark in (True, False):
        positive = below if dark else totals[:, None] - below
        hit, false = positive[1], positive[0]
        ious = np.stack([hit / (totals[1] + false), (totals[0] - false) / (totals[0] + totals[1] - hit)])
        level = int(ious.mean(0).argmax())
        found.append(Threshold(level, dark, float(ious.mean(0)[level])))
    return max(found, key=lambda each: each.miou)

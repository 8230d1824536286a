"""Masks that are pictures: each pixel to the class of the nearest colour, within a tolerance.

Saved with losses, such a mask holds thousands of colours for six classes; matched exactly, it would lose its pixels in
silence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geospatial.class_masks import IGNORE


def palette_classes(picture: np.ndarray, colours: Sequence[Sequence[int]], tolerance: float) -> np.ndarray:
    """uint8 (3, H, W) -> uint8 (H, W): the number of the nearest colour, IGNORE farther than `tolerance` from all.

    Distance: Euclidean in RGB. Of equally near colours the first counts.
    """
    red, green, blue = picture.astype(np.int64)
    packed, places = np.unique((red << 16 | green << 8 | blue).reshape(-1), return_inverse=True)
    seen = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1)  # (U, 3): far fewer than pixels
    squares = ((seen[:, None] - np.asarray(colours, np.int64)) ** 2).sum(-1)
    classes = np.where(squares.min(1) <= tolerance**2, squares.argmin(1), IGNORE).astype(np.uint8)
    return classes[places].reshape(picture.shape[1:])


def palette_classes_reference(picture: np.ndarray, colours: Sequence[Sequence[int]], tolerance: float) -> np.ndarray:
    """The same pixel by pixel."""
    result = np.full(picture.shape[1:], IGNORE, np.uint8)
    for row, column in np.ndindex(*result.shape):
        apart = [np.hypot.reduce(picture[:, row, column].astype(float) - np.array(colour)) for colour in colours]
        nearest = int(np.argmin(apart))
        if apart[nearest] <= tolerance:
            result[row, column] = nearest
    return result

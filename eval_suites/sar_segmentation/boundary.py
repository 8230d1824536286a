"""Pixels of a class near its edge, and how many of them two maps share.

Source: Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation (CVPR 2021), section 4: the
boundary region of a mask is what lies in it within d px of its contour; d is 2 % of the image's diagonal, at least 1;
distance is that of d erosions by a 3 x 3 square, and the border of the image is part of the contour.
"""

from __future__ import annotations

import numpy as np


def boundary_width(shape: tuple[int, int], share: float) -> int:
    """d in px of maps (H, W)."""
    return max(1, round(share * float(np.hypot(*shape))))


def boundary_of(mask: np.ndarray, width: int) -> np.ndarray:
    """bool (H, W): pixels of the mask that `width` erosions by a 3 x 3 square take away.

    They leave a pixel whose whole square of 2 * width + 1 px is mask; one table of sums says so for all of them.
    """
    side = 2 * width + 1
    table = np.pad(mask, ((width + 1, width), (width + 1, width))).astype(np.int32).cumsum(0).cumsum(1)
    filled = table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]
    return mask & (filled < side * side)


def boundary_of_reference(mask: np.ndarray, width: int) -> np.ndarray:
    """The same by its definition: one erosion after the other."""
    left = mask.copy()
    for _ in range(width):
        padded = np.pad(left, 1)
        shifted = [padded[i : i + mask.shape[0], j : j + mask.shape[1]] for i in range(3) for j in range(3)]
        left = np.logical_and.reduce(shifted)
    return mask & ~left


def boundary_counts(labels: np.ndarray, predictions: np.ndarray, classes: int, width: int) -> np.ndarray:
    """int64 (2, K): intersection and union of both boundary regions, in px, class by class.

    labels, predictions: uint8 (H, W); pixels that are no class in `labels` must be none in `predictions` either.
    """
    result = np.zeros((2, classes), np.int64)
    for number in range(classes):
        truth, found = labels == number, predictions == number
        if truth.any() or found.any():
            one, other = boundary_of(truth, width), boundary_of(found, width)
            result[:, number] = (one & other).sum(), (one | other).sum()
    return result

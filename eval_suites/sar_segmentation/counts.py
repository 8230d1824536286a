"""All that the suite keeps of one raster: whole numbers, from which every score of any set of rasters follows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eval_suites.sar_segmentation.boundary import boundary_counts, boundary_width
from geospatial.class_masks import IGNORE
from geospatial.confusion import confusion_matrix

BOUNDARY_SHARE = 0.02


class Counts(NamedTuple):
    """`matrix` int64 (K, K): pixels by label (row) and prediction; `boundary` int64 (2, K): intersection, union."""

    matrix: np.ndarray
    boundary: np.ndarray


def count(labels: np.ndarray, predictions: np.ndarray, classes: int, share: float = BOUNDARY_SHARE) -> Counts:
    """Two class maps uint8 (H, W); pixels labelled IGNORE count nowhere. ValueError: a class that is not below K."""
    known = np.where(labels == IGNORE, np.uint8(IGNORE), predictions)
    width = boundary_width((labels.shape[0], labels.shape[1]), share)
    return Counts(confusion_matrix(labels, known, classes), boundary_counts(labels, known, classes, width))

"""Confusion matrix of class maps, accumulated over a whole set, and the scores that follow from it.

Absent classes: a class that occurs neither in the labels nor in the predictions of the whole set has no IoU (NaN) and
is left out of the mean; one that occurs in either counts, with 0 where there is no overlap (spec section 3.5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from geospatial.class_masks import IGNORE


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """int64 (K, K): pixels by label (row) and prediction (column); label IGNORE is left out. Both uint8, same shape.

    ValueError: a class that is not below K, in either.
    """
    # Both bytes side by side make one number below 65536: one pass, no mask.
    joint = labels.reshape(-1).astype(np.uint16) << 8 | predictions.reshape(-1)
    table = np.bincount(joint, minlength=1 << 16).reshape(256, 256)
    counted = int(table[:IGNORE].sum())
    matrix = table[:classes, :classes].astype(np.int64)
    if int(matrix.sum()) != counted:
        raise ValueError(f"labels or predictions hold classes that are not below {classes}")
    return matrix


def confusion_matrix_reference(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """The same by its definition."""
    return np.array([[int(((labels == i) & (predictions == j)).sum()) for j in range(classes)] for i in range(classes)])


def class_ious(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, float64 (K,), NaN for absent ones."""
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def scores(matrix: np.ndarray, names: Sequence[str]) -> Mapping[str, float]:
    """{"miou", "pixel_accuracy", "class_accuracy", "iou/NAME" of each present class}; empty without any pixel.

    class_accuracy: mean recall over the classes that occur in the labels.
    """
    total = matrix.sum()
    if not total:
        return {}
    hits, labelled, ious = np.diag(matrix), matrix.sum(1), class_ious(matrix)
    recalls = hits[labelled > 0] / labelled[labelled > 0]
    found = {
        "miou": float(np.nanmean(ious)),
        "pixel_accuracy": float(hits.sum() / total),
        "class_accuracy": float(recalls.mean()),
    }
    named = {f"iou/{name}": float(iou) for name, iou in zip(names, ious, strict=True) if not np.isnan(iou)}
    return {**found, **named}

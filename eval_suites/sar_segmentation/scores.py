"""Scores as functions of summed counts, for one set or for many resamples at once; NaN: of a class that is nowhere.

Absent classes: one in neither labels nor predictions of the whole set is left out of every mean; one in either counts,
with 0 where nothing agrees (spec section 3.5). `macc` is the mean recall of the classes that are labelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from geospatial.confusion import class_ious

Statistic = Callable[[np.ndarray], np.ndarray]


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the last axis, of what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    return _share(np.where(known, values, 0).sum(-1), known.sum(-1))


def _hits(matrix: np.ndarray) -> np.ndarray:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def class_f1(matrix: np.ndarray) -> np.ndarray:
    """(..., K, K) -> (..., K): 2 hits / (labelled + predicted)."""
    return _share(2 * _hits(matrix), matrix.sum(-1) + matrix.sum(-2))


def miou(matrix: np.ndarray) -> np.ndarray:
    """Mean IoU."""
    return _mean(class_ious(matrix))


def mf1(matrix: np.ndarray) -> np.ndarray:
    """Mean F1."""
    return _mean(class_f1(matrix))


def oa(matrix: np.ndarray) -> np.ndarray:
    """Overall accuracy: share of labelled pixels that are right."""
    return _share(_hits(matrix).sum(-1), matrix.sum((-2, -1)))


def macc(matrix: np.ndarray) -> np.ndarray:
    """Mean recall."""
    return _mean(_share(_hits(matrix), matrix.sum(-1)))


def kappa(matrix: np.ndarray) -> np.ndarray:
    """Cohen's kappa (1960): agreement beyond that of two maps with these class shares at random."""
    total = matrix.sum((-2, -1)).astype(np.float64)
    by_chance = _share((matrix.sum(-1).astype(np.float64) * matrix.sum(-2)).sum(-1), total**2)
    return _share(oa(matrix) - by_chance, 1 - by_chance)


def boundary_iou(boundary: np.ndarray) -> np.ndarray:
    """(..., 2, K) intersection and union -> (..., K)."""
    return _share(boundary[..., 0, :], boundary[..., 1, :])


def boundary_miou(boundary: np.ndarray) -> np.ndarray:
    """Mean boundary IoU."""
    return _mean(boundary_iou(boundary))


#: Of confusion matrices (..., K, K) -> (...).
OF_MATRIX: Mapping[str, Statistic] = {"miou": miou, "mf1": mf1, "oa": oa, "macc": macc, "kappa": kappa}
#: Of confusion matrices -> (..., K).
OF_CLASS: Mapping[str, Statistic] = {"iou": class_ious, "f1": class_f1}

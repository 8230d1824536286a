"""IoU with intervals: pixels of one image are not independent, so whole images are resampled.

Source: Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8; percentile intervals. An IoU
is a ratio of sums over all images, so the sums of each resample are formed first and the ratio after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from geospatial.confusion import class_ious

LEVEL, RESAMPLES = 0.95, 2000


@dataclass(frozen=True)
class ScoreInterval:
    """`value` over all images, and the ends of its bootstrap interval at LEVEL. NaN: of a class that is nowhere.

    low, high: None with a single image, or where a class is in none of the resamples.
    """

    value: float
    low: float | None
    high: float | None
    images: int


def resampled_sums(matrices: np.ndarray) -> np.ndarray:
    """matrices (N, K, K), one an image -> sums (RESAMPLES, K, K) of N images drawn with replacement, always the same
    draws for the same N, so that differences of two models are paired.
    """
    count = len(matrices)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    return (draws @ matrices.reshape(count, -1)).reshape(-1, *matrices.shape[1:])


def mean_iou(sums: np.ndarray) -> np.ndarray:
    """Mean over the classes that are there, (...), of confusion matrices (..., K, K) with a pixel each."""
    return np.nanmean(class_ious(sums), -1)


def class_intervals(matrices: np.ndarray) -> list[ScoreInterval]:
    """IoU of each class over images whose matrices (N, K, K) are given."""
    values, drawn = class_ious(matrices.sum(0)), class_ious(resampled_sums(matrices))
    return [_interval(float(value), column, len(matrices)) for value, column in zip(values, drawn.T, strict=True)]


def miou_interval(matrices: np.ndarray) -> ScoreInterval:
    """Mean IoU over images whose matrices (N, K, K) are given."""
    return _of(mean_iou, matrices)


def miou_difference(one: np.ndarray, other: np.ndarray) -> ScoreInterval:
    """Mean IoU of `one` minus that of `other` on the same images in the same order, (N, K, K) each, paired."""
    if one.shape != other.shape:
        raise ValueError(f"matrices {one.shape} and {other.shape} are not of the same images")
    return _of(lambda pair: mean_iou(pair[..., 0, :, :]) - mean_iou(pair[..., 1, :, :]), np.stack([one, other], 1))


def _of(statistic: Callable[[np.ndarray], np.ndarray], matrices: np.ndarray) -> ScoreInterval:
    return _interval(float(statistic(matrices.sum(0))), statistic(resampled_sums(matrices)), len(matrices))


def _interval(value: float, drawn: np.ndarray, images: int) -> ScoreInterval:
    return ScoreInterval(value, *interval_ends(drawn, images), images)


def interval_ends(drawn: np.ndarray, groups: int) -> tuple[float, float] | tuple[None, None]:
    """Ends of the interval at LEVEL of a score's resamples (R,); none with one group, or where all are NaN."""
    known = drawn[~np.isnan(drawn)]
    if groups < 2 or not len(known):
        return None, None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)

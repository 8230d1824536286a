"""Means with honest intervals: values that share an image are not independent, so whole images are resampled.

Source: Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8: resample clusters, keep each
cluster whole. The interval is the percentile interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

#: Group indices drawn at once; bounds the memory, not the result.
DRAWS_AT_ONCE = 4_000_000
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean of `n_values` values in `n_groups` groups, and its bootstrap interval at `level` (0.95 = 95 %).

    `low` and `high` are None with a single group: nothing is known then of how groups differ. `n_infinite` values were
    +inf; they are in none of the other figures. `mean` is inf only where every value was.
    """

    mean: float
    low: float | None
    high: float | None
    level: float
    n_values: int
    n_groups: int
    n_infinite: int = 0


def bootstrap_mean(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[str] | Sequence[int] | np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean of `values` (N,) and its cluster bootstrap interval; `groups` (N,) names the group of each value.

    Each resample draws as many groups as there are, with replacement, and takes the mean over all their values. The
    same input in any order gives the same bits. +inf (the PSNR of an exact copy) is set aside and counted. ValueError:
    no values, NaN or -inf, lengths that differ, a level outside (0, 1), no resamples.
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; it must be at least 1")
    return _interval(values, groups, level, lambda sums, counts: _percentiles(sums, counts, level, resamples, seed))


def normal_mean(values: np.ndarray, groups: np.ndarray, *, level: float = 0.95) -> Interval:
    """What `bootstrap_mean` comes near with many groups, without a draw: the linearised ratio's normal interval.

    Source: Cochran, Sampling Techniques (1977), section 9A.1. Same arguments, same errors.
    """

    def ends(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
        mean = sums.sum() / counts.sum()
        half = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(np.square(sums - mean * counts).sum()) / counts.sum()
        return float(mean - half), float(mean + half)

    return _interval(values, groups, level, ends)


def _interval(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[str] | Sequence[int] | np.ndarray,
    level: float,
    ends: Callable[[np.ndarray, np.ndarray], tuple[float, float]],
) -> Interval:
    """The mean, with the ends that follow from the sum and the count (G,) of each group."""
    numbers, names = np.asarray(values, dtype=np.float64), np.asarray(groups)
    _check(numbers, names, level)
    finite = np.isfinite(numbers)
    n_infinite = int((~finite).sum())
    if not finite.any():
        return Interval(np.inf, None, None, level, 0, 0, n_infinite)
    sums, counts = _group_totals(numbers[finite], names[finite])
    mean = float(sums.sum() / counts.sum())
    low, high = (None, None) if len(sums) == 1 else ends(sums, counts)
    return Interval(mean, low, high, level, int(finite.sum()), len(sums), n_infinite)


def _check(values: np.ndarray, groups: np.ndarray, level: float) -> None:
    if values.ndim != 1 or values.shape != groups.shape:
        raise ValueError(f"values {values.shape} and groups {groups.shape} must be two lists of one length")
    if not len(values):
        raise ValueError("there are no values to take a mean of")
    if np.isnan(values).any() or np.isneginf(values).any():
        raise ValueError("values hold NaN or -inf, which have no place in a mean")
    if not 0 < level < 1:
        raise ValueError(f"level {level} must lie between 0 and 1, e.g. 0.95")


def _group_totals(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count (G,) of each group, groups and values in sorted order so that the order of arrival is forgotten."""
    order = np.lexsort((values, groups))
    _, starts, counts = np.unique(groups[order], return_index=True, return_counts=True)
    return np.add.reduceat(values[order], starts), counts


def _percentiles(sums: np.ndarray, counts: np.ndarray, level: float, resamples: int, seed: int) -> tuple[float, float]:
    random = np.random.default_rng(seed)
    size = len(sums)
    rows = max(1, DRAWS_AT_ONCE // size)
    means = []
    for start in range(0, resamples, rows):
        drawn = random.integers(0, size, (min(rows, resamples - start), size))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

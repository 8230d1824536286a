"""Which of two models is better, or whether nobody can tell: pair by pair, and letters for those alike.

Where both sample logs hold a metric, the differences on the samples that both measured are resampled by group (paired
bootstrap): the easy and the hard pictures are easy and hard for both, so this sees far smaller differences than two
intervals beside each other. Elsewhere (a number of the whole set, such as rFID) the two intervals must not overlap.
Without an interval, or with fewer than MIN_GROUPS groups, nothing is told apart. Each pair is judged alone at 95 %: no
correction for how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from eval_suites.leaderboard.gathering import Entry
from eval_suites.statistics import bootstrap_mean

LEVEL = 0.95
#: Fewer groups cannot say anything at 95 %: of two equal models one is ahead on all of five groups in 1 case of 16, and
#: a bootstrap of differences of one sign never reaches zero.
MIN_GROUPS = 6
#: What the tables say of themselves; the docstring above says it to whoever reads the code.
RULE = (
    "Rows that share a letter in a column were not told apart there; the letter a is the best row's. Two rows are told "
    "apart where the 95 % interval of their difference leaves out zero: paired bootstrap over the groups (photographs, "
    "rasters) that both measured, from their sample logs, 2,000 resamples, seed 0. A number of the whole set has no "
    "rows to pair: there the two intervals must not overlap. Without an interval, or with fewer than 6 groups, nothing "
    "is told apart, and a column where no pair could be judged has no letters. Each pair is judged alone, without a "
    "correction for how many pairs there are: of twenty pairs of equal models about one is told apart by chance."
)
PAIRED, OVERLAP = "paired bootstrap", "interval overlap"
NEITHER, TOO_FEW = "no interval", "too few groups"  #: reasons why a pair could not be judged


@dataclass(frozen=True)
class Comparison:
    """Of two rows of a table, numbered from 0. difference: first minus second; low, high: its interval at 95 %.

    n_groups: groups that both measured. n_exact: samples set aside because one of the two was +inf there.
    """

    first: int
    second: int
    method: str
    told_apart: bool
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    n_groups: int = 0
    n_exact: int = 0

    @property
    def judged(self) -> bool:
        """Whether the two could have been told apart at all."""
        return self.method in (PAIRED, OVERLAP)


def compare_all(entries: Sequence[Entry], metric: str) -> list[Comparison]:
    """Every pair of the entries that measured the metric."""
    measured = [number for number, entry in enumerate(entries) if _value(entry, metric) is not None]
    return [compare(entries, pair, metric) for pair in combinations(measured, 2)]


def compare(entries: Sequence[Entry], pair: tuple[int, int], metric: str) -> Comparison:
    """One pair, which both measured the metric."""
    first, second = entries[pair[0]], entries[pair[1]]
    there, here = first.values(metric), second.values(metric)
    shared = [row for row in first.rows if row.key in there and row.key in here]
    if shared:
        return _paired(pair, [(there[row.key], here[row.key], row.group) for row in shared])
    return _by_intervals(first, second, pair, metric)


def _paired(pair: tuple[int, int], shared: Sequence[tuple[float, float, str]]) -> Comparison:
    """shared: the two values and the group of each sample."""
    kept = [(a - b, group) for a, b, group in shared if math.isfinite(a) and math.isfinite(b)]
    n_exact = len(shared) - len(kept)
    if not kept:
        return Comparison(*pair, NEITHER, told_apart=False, n_exact=n_exact)
    found = bootstrap_mean([one for one, _ in kept], [group for _, group in kept], level=LEVEL)
    outside = found.low is not None and found.high is not None and (found.low > 0 or found.high < 0)
    method = NEITHER if found.low is None else PAIRED if found.n_groups >= MIN_GROUPS else TOO_FEW
    return Comparison(
        *pair, method, method == PAIRED and outside, found.mean, found.low, found.high, found.n_groups, n_exact
    )


def _by_intervals(first: Entry, second: Entry, pair: tuple[int, int], name: str) -> Comparison:
    a, b = first.record.metric(name), second.record.metric(name)
    if a is None or b is None or a.low is None or a.high is None or b.low is None or b.high is None:
        return Comparison(*pair, NEITHER, told_apart=False)
    if any(0 < metric.n_groups < MIN_GROUPS for metric in (a, b)):  # 0: the record does not say
        return Comparison(*pair, TOO_FEW, told_apart=False)
    return Comparison(*pair, OVERLAP, told_apart=a.low > b.high or a.high < b.low)


def _value(entry: Entry, name: str) -> float | None:
    metric = entry.record.metric(name)
    return metric.value if metric is not None else None


def letters(order: Sequence[int], apart: Sequence[tuple[int, int]]) -> dict[int, str]:
    """A letter for each largest set of rows none of which is told apart from another; `order`: rows, best first.

    Two rows share a letter exactly when they are not told apart. (Insert and absorb: Piepho 2004, "An algorithm for a
    letter-based representation of all-pairwise comparisons".)
    """
    sets = [frozenset(order)]
    for pair in apart:
        split = [part for one in sets for part in ([one - {row} for row in pair] if one.issuperset(pair) else [one])]
        sets = [one for number, one in enumerate(split) if not _absorbed(one, number, split)]
    place = {row: number for number, row in enumerate(order)}
    ordered = sorted(sets, key=lambda one: sorted(place[row] for row in one))
    return {row: "".join(letter(number) for number, one in enumerate(ordered) if row in one) for row in order}


def _absorbed(one: frozenset[int], number: int, sets: Sequence[frozenset[int]]) -> bool:
    """Whether another set holds all of it; of equal ones the first stays."""
    return any(one < other or (one == other and before < number) for before, other in enumerate(sets))


def letter(number: int) -> str:
    """a to z, then a1 to z1, a2, ..."""
    round_, place = divmod(number, 26)
    return "abcdefghijklmnopqrstuvwxyz"[place] + (str(round_) if round_ else "")

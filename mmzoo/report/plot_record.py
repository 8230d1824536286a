"""Plots of a run report that do not run over training steps: shares as bars, and points of several groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: As many parts, or groups, can be told apart by colour.
MOST_PARTS = 6


@dataclass(frozen=True)
class ShareBars:
    """One bar a row, divided into `parts`. rows: (label, share of each part, 0 to 1, that sum to 1).

    ValueError: more than six parts, or shares that are none.
    """

    title: str
    parts: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float]]]
    note: str = ""

    def __post_init__(self) -> None:
        _check_count(self.title, len(self.parts))
        for label, shares in self.rows:
            if len(shares) != len(self.parts):
                raise ValueError(f"{self.title!r}: {label!r} has {len(shares)} shares of {len(self.parts)} parts")
            if min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
                raise ValueError(f"{self.title!r}: the shares of {label!r} are {list(shares)}; they must sum to 1")


@dataclass(frozen=True)
class PointGroup:
    """Points of one colour; x, y: finite, of one length. ValueError otherwise."""

    name: str
    x: Sequence[float]
    y: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"{self.name!r} has {len(self.x)} x for {len(self.y)} y")
        if not all(math.isfinite(value) for value in (*self.x, *self.y)):
            raise ValueError(f"{self.name!r} has points that are not finite")


@dataclass(frozen=True)
class PointPanel:
    """One chart of points; x_label, y_label: what the axes are, with units. ValueError for more than six groups."""

    title: str
    x_label: str
    y_label: str
    groups: Sequence[PointGroup]

    def __post_init__(self) -> None:
        _check_count(self.title, len(self.groups))


def _check_count(title: str, count: int) -> None:
    if count > MOST_PARTS:
        raise ValueError(f"{title!r} has {count} colours, but {MOST_PARTS} can be told apart: split it")

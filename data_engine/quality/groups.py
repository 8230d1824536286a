"""Pairs of rows that belong together, joined to groups."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

Pair = tuple[int, int]


def equal_groups(values: Sequence[Hashable | None]) -> list[list[int]]:
    """Rows with equal values, groups of two and more, ascending; None equals nothing."""
    rows: dict[Hashable, list[int]] = {}
    for row, value in enumerate(values):
        if value is not None:
            rows.setdefault(value, []).append(row)
    return [group for group in rows.values() if len(group) > 1]


def joined_groups(pairs: Iterable[Pair]) -> list[list[int]]:
    """The connected groups of pairs, each ascending, in the order of their first rows."""
    root: dict[int, int] = {}

    def top(row: int) -> int:
        while root.setdefault(row, row) != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for one, two in pairs:
        low, high = sorted((top(one), top(two)))
        root[high] = low
    groups: dict[int, list[int]] = {}
    for row in sorted(root):
        groups.setdefault(top(row), []).append(row)
    return list(groups.values())

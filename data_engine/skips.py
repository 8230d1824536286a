"""Ranges of the virtual sequence that training leaves out, such as the data of a loss spike.

A skip is (start, stop): the positions start, ..., stop - 1 are never read. Skips are sorted and lie apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Skips = tuple[tuple[int, int], ...]


def merged(ranges: Iterable[Sequence[int]]) -> Skips:
    """Any ranges as sorted skips; touching and overlapping ones become one, empty ones go."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted((int(start), int(stop)) for start, stop in ranges):
        if stop <= start:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((start, stop))
    return tuple(found)


def next_positions(start: int, count: int, skips: Skips = ()) -> list[int]:
    """The first `count` positions from `start` on that are not skipped."""
    positions: list[int] = []
    for skip_start, skip_stop in skips:
        if skip_stop <= start:
            continue
        positions += range(start, min(skip_start, start + count - len(positions)))
        if len(positions) >= count:
            return positions
        start = skip_stop
    return positions + list(range(start, start + count - len(positions)))


def kept(start: int, stop: int, skips: Skips = ()) -> list[tuple[int, int]]:
    """What is left of the positions start, ..., stop - 1 without the skipped ones, as (start, stop)."""
    ranges = []
    for first, last in skips:
        if first >= stop or last <= start:
            continue
        if first > start:
            ranges.append((start, first))
        start = max(start, last)
    return [*ranges, (start, stop)] if start < stop else ranges


def advance(start: int, count: int, skips: Skips = ()) -> int:
    """The position after `count` samples were consumed from `start` on: one behind the last of them."""
    if count == 0:
        return start
    stop = start + count
    for skip_start, skip_stop in skips:
        if skip_stop > start and skip_start < stop:
            stop += skip_stop - max(start, skip_start)
    return stop

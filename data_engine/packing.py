"""Which samples share a row of the model: best-fit decreasing over lengths in tokens, whole or window by window.

The longest sample first, equal ones in the given order, each into the fullest bin that has room, the earliest of equal
ones; where none has room a bin is opened. A sample above the capacity gets a bin of its own, so over-long ones are
dealt with before (over_long.py). Integers only: every rank and every machine finds the same bins. The plain form is in
packing_reference.py.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np

Bins = list[list[int]]


def best_fit_decreasing(lengths: Sequence[int] | np.ndarray, capacity: int) -> Bins:
    """Bins of item numbers, in the order of placing; the bins in the order of opening.

    Open bins are kept by the room that is left in them, and the rooms in a sorted list: finding the fullest bin is one
    bisection, however many bins there are.
    """
    sizes = np.asarray(lengths, np.int64)
    order = np.argsort(-sizes, kind="stable")
    bins: Bins = []
    rooms: list[int] = []  # each room that an open bin has, once, ascending
    opened: dict[int, list[int]] = {}  # room -> heap of the bins that have it
    for item, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        place = bisect_left(rooms, size)
        if place == len(rooms):
            chosen = len(bins)
            bins.append([item])
            if size > capacity:
                continue
            left = capacity - size
        else:
            room = rooms[place]
            same = opened[room]
            chosen = heappop(same)
            bins[chosen].append(item)
            if size == 0:
                heappush(same, chosen)
                continue
            if not same:
                del rooms[place], opened[room]
            left = room - size
        if left in opened:
            heappush(opened[left], chosen)
        else:
            opened[left] = [chosen]
            rooms.insert(bisect_left(rooms, left), left)
    return bins


def pack_windows(lengths: Sequence[int] | np.ndarray, capacity: int, window: int | None) -> Bins:
    """Bins of item numbers, packed as the items come.

    A buffer is filled up to `window` items and packed; the bin that was opened last goes back, its items begin the next
    buffer, so that a window leaves no half-empty bin behind. `window` None: all at once.
    """
    sizes = np.asarray(lengths, np.int64)
    found: Bins = []
    buffer: list[int] = []
    start = 0
    while start < len(sizes):
        more = len(sizes) if window is None else window - len(buffer)
        stop = min(len(sizes), start + (more if more > 0 else window or 0))  # a bin may hold more than a window
        buffer += range(start, stop)
        bins = [[buffer[item] for item in chosen] for chosen in best_fit_decreasing(sizes[buffer], capacity)]
        again = window is not None and len(buffer) >= window and stop < len(sizes)
        buffer = bins.pop() if again else []
        found += bins
        start = stop
    return found


def fill(lengths: Sequence[int] | np.ndarray, bins: Bins, capacity: int) -> float:
    """Used share of the bins, 0 to 1."""
    return float(np.asarray(lengths, np.int64).sum()) / (len(bins) * capacity) if bins else 0.0

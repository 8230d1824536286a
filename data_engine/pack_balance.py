"""Evens out visual tokens between bins, because the vision tower's cost is paid by them and not by the row's length.

Best-fit decreasing looks at lengths only. Afterwards samples of nearly the same length change places wherever both
bins still fit and their visual tokens come closer together. No bin is opened, closed or made fuller than the capacity,
so the fill stays.
"""

from __future__ import annotations

import numpy as np

from data_engine.packing import Bins

#: How many longer neighbours, in the order of lengths, a sample is offered; how often the whole list is gone through.
REACH, PASSES = 8, 1


def balanced(bins: Bins, lengths: np.ndarray, visual: np.ndarray, capacity: int) -> Bins:
    """The bins after the exchanges; `lengths`, `visual`: tokens of each item, int (n,). Deterministic.

    Every exchange lowers the sum of squares of the bins' visual tokens.
    """
    home = np.empty(len(lengths), np.int64)
    for number, members in enumerate(bins):
        home[members] = number
    count = len(bins)
    rooms = (capacity - np.bincount(home, lengths, count).astype(np.int64)).tolist()
    totals = np.bincount(home, visual, count).astype(np.int64).tolist()
    state = _State(lengths.tolist(), visual.tolist(), home.tolist(), rooms, totals)
    order = np.argsort(lengths, kind="stable").tolist()
    for _ in range(PASSES):
        if not sum(_offer(state, order, place) for place in range(len(order))):
            break
    return _by_bin(state.home, [len(members) for members in bins])


class _State:
    """Where each item is, and what each bin has left and sees."""

    def __init__(self, size: list[int], seen: list[int], home: list[int], rooms: list[int], totals: list[int]) -> None:
        self.size, self.seen, self.home, self.rooms, self.totals = size, seen, home, rooms, totals


def _offer(state: _State, order: list[int], place: int) -> bool:
    """Exchanges the item with the first longer neighbour that suits both bins."""
    size, seen, home, rooms, totals = state.size, state.seen, state.home, state.rooms, state.totals
    one = order[place]
    here = home[one]
    for other in order[place + 1 : place + 1 + REACH]:
        longer = size[other] - size[one]
        if longer > rooms[here]:
            return False
        there = home[other]
        fewer = seen[one] - seen[other]
        if here != there and fewer * (totals[here] - totals[there] - fewer) > 0:
            home[one], home[other] = there, here
            rooms[here] -= longer
            rooms[there] += longer
            totals[here] -= fewer
            totals[there] += fewer
            return True
    return False


def _by_bin(home: list[int], counts: list[int]) -> Bins:
    order = np.argsort(home, kind="stable").tolist()
    ends = np.cumsum(counts).tolist()
    return [order[end - count : end] for end, count in zip(ends, counts, strict=True)]

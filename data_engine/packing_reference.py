"""The plain form of packing.py: what it says, word for word, in quadratic time. The tests compare the two."""

from __future__ import annotations

from collections.abc import Sequence


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """As packing.best_fit_decreasing: every bin is looked at for every item."""
    bins: list[list[int]] = []
    sums: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        fitting = [number for number, total in enumerate(sums) if total + lengths[item] <= capacity]
        if fitting:
            fullest = max(fitting, key=lambda number: sums[number])  # max keeps the first of equal ones
            bins[fullest].append(item)
            sums[fullest] += lengths[item]
        else:
            bins.append([item])
            sums.append(lengths[item])
    return bins


def pack_windows(lengths: Sequence[int], capacity: int, window: int) -> list[list[int]]:
    """As packing.pack_windows with a window: item by item into the buffer."""
    found: list[list[int]] = []
    buffer: list[int] = []
    new = 0
    for item in range(len(lengths)):
        buffer.append(item)
        new += 1
        carried = len(buffer) - new  # samples without a token: a bin may hold more of them than a window
        full = new >= (window - carried if carried < window else window)
        if full and item + 1 < len(lengths):
            *whole, last = _named(buffer, lengths, capacity)
            found += whole
            buffer, new = last, 0
    return found + _named(buffer, lengths, capacity)


def _named(buffer: list[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    bins = best_fit_decreasing([lengths[item] for item in buffer], capacity)
    return [[buffer[item] for item in chosen] for chosen in bins]

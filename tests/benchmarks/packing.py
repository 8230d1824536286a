"""Packing a mixture of vision and language: our best-fit decreasing by windows beside its plain form and next-fit.

The lengths, in tokens: text log-normal (median 245, sigma 1), 16 to 4,096; an image in every sample, 256 to 4,096
visual tokens, their logarithm uniform. A row holds 8,192.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from data_engine import packing_reference
from data_engine.pack_balance import balanced
from data_engine.packing import Bins, fill, pack_windows
from tests.benchmarks.record import Comparison
from tests.benchmarks.timing import Contender, Figures, interleaved

SAMPLES, CAPACITY, WINDOW, ROUNDS = 50_000, 8192, 1024, 7
MOST_MICROSECONDS, LEAST_FILL = 1.0, 0.994


def lengths() -> tuple[np.ndarray, np.ndarray]:
    """int64 (N,) each: all tokens of a sample, and the visual ones among them."""
    random = np.random.default_rng(0)
    text = np.exp(random.normal(5.5, 1.0, SAMPLES)).clip(16, 4096).astype(np.int64)
    visual = np.exp2(random.uniform(8, 12, SAMPLES)).astype(np.int64)
    return text + visual, visual


def next_fit(sizes: np.ndarray) -> Bins:
    """What a stream without a buffer does: a sample that does not fit opens the next row."""
    bins: Bins = [[]]
    used = 0
    for item, size in enumerate(sizes.tolist()):
        if used + size > CAPACITY:
            bins.append([])
            used = 0
        bins[-1].append(item)
        used += size
    return bins


def microseconds(figures: Figures) -> Figures:
    """Of one sample, from the seconds of all."""
    return Figures(tuple(value / SAMPLES * 1e6 for value in figures.values))


def compare() -> list[Comparison]:
    """Equal bins asserted first; the fill is asserted too, because a faster packer that fills less is no better."""
    sizes, visual = lengths()
    packed = pack_windows(sizes, CAPACITY, WINDOW)
    assert packed == packing_reference.pack_windows(sizes.tolist(), CAPACITY, WINDOW)
    ways: dict[str, Callable[[], Bins]] = {
        "windows": partial(pack_windows, sizes, CAPACITY, WINDOW),
        "whole": partial(pack_windows, sizes, CAPACITY, None),
        "balance": partial(balanced, packed, sizes, visual, CAPACITY),
        "plain": partial(packing_reference.pack_windows, sizes.tolist(), CAPACITY, WINDOW),
        "next": partial(next_fit, sizes),
    }
    fills = {name: fill(sizes, make(), CAPACITY) for name, make in ways.items()}
    assert fills["windows"] >= LEAST_FILL, f"a window of {WINDOW} fills {fills['windows']:.2%}"
    spread = {name: np.std([visual[members].sum() for members in ways[name]()]) for name in ("windows", "balance")}
    sys.stderr.write(
        f"visual tokens of a row, standard deviation: {spread['windows']:.0f}, balanced {spread['balance']:.0f}\n"
    )
    found = interleaved({name: Contender(make) for name, make in ways.items()}, ROUNDS, time.process_time)
    figures = {name: microseconds(of_way) for name, of_way in found.items()}
    case = f"packing, window {WINDOW}, fill {fills['windows']:.2%}"
    whole = f"packing, whole epoch, fill {fills['whole']:.2%}"
    return [
        Comparison(case, "plain form", figures["windows"], figures["plain"], "us", at_most=MOST_MICROSECONDS),
        Comparison(case, f"next-fit, fill {fills['next']:.2%}", figures["windows"], figures["next"], "us"),
        Comparison(whole, "window", figures["whole"], figures["windows"], "us"),
        Comparison("balancing visual tokens on top", "packing", figures["balance"], figures["windows"], "us"),
    ]

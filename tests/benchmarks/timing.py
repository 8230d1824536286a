"""Times contenders in turn within one run, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Contender:
    """`run` is timed; `prepare` is called before each run and is not."""

    run: Callable[[], Any]
    prepare: Callable[[], Any] = lambda: None


@dataclass(frozen=True)
class Figures:
    """All repeats of one contender, in the order they were taken; seconds or MiB, the smaller the better."""

    values: tuple[float, ...]

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def middle(self) -> float:
        return median(self.values)


def in_turns(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Figures]:
    """What each contender measures of itself, over `rounds` rounds, each round in another order."""
    names = list(contenders)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        gc.collect()
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(contenders[name]())
    return {name: Figures(tuple(values)) for name, values in found.items()}


def interleaved(
    contenders: Mapping[str, Contender], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Figures]:
    """Seconds of each contender over `rounds` rounds, each round in another order.

    clock: time.process_time counts what this process computes, not what it waits for; on one thread and a busy machine
    it is the steadier of the two.

    No round to warm up: the sanity check that comes before any timing has run every contender once.
    """

    def seconds(contender: Contender) -> float:
        contender.prepare()
        start = clock()
        contender.run()
        return clock() - start

    return in_turns({name: partial(seconds, contender) for name, contender in contenders.items()}, rounds)

"""The virtual global sequence: which row stands at position 0, 1, 2, ... for ever, as a pure function of the seed.

An epoch is one keyed permutation of the rows. A position, an integer, is the whole state: there is no shuffle buffer to
save, and ranks and workers only read slices of the sequence, so any number of them sees the same order.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from itertools import repeat

import numpy as np

from mmzoo.errors import InputError

# One word of the Philox counter tells the uses of a key apart, so that their streams cannot meet.
_ORDER, _SAMPLE, _PART = 1, 2, 3
#: Raised when the same seed and rows come to give another order, or other randomness of a sample.
ALGORITHM = 1
_WORD = 2**64


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of range(count) of one epoch, int64 (count,).

    Made from Philox words and a stable sort: unlike Generator.permutation, both are fixed over numpy versions.
    """
    return np.argsort(_philox((seed, epoch), (0, 0, _ORDER, 0)).random_raw(count), kind="stable")


def part_order(count: int, seed: int, part: int, number: int) -> np.ndarray:
    """A permutation of range(count) for use inside one part of a mixture, apart from every epoch's order."""
    return np.argsort(_philox((seed, number), (0, 0, _PART, part)).random_raw(count), kind="stable")


def sample_generator(seed: int, epoch: int, position: int, member: int = 0) -> np.random.Generator:
    """The only source of randomness of the sample at `position`: a function of these numbers. `member`: in its pack."""
    return np.random.Generator(_philox((seed, position), (0, member, _SAMPLE, epoch)))


class SampleRandomness:
    """The same generators, six times faster: one is set anew for each sample, so it is good until the next `at`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._bits = _philox((seed, 0), (0, 0, _SAMPLE, 0))
        self._state = self._bits.state
        self._key, self._counter = self._state["state"]["key"], self._state["state"]["counter"]
        self._generator = np.random.Generator(self._bits)

    def at(self, epoch: int, position: int, member: int = 0) -> np.random.Generator:
        """`sample_generator(seed, epoch, position, member)`."""
        self._key[1] = position % _WORD
        self._counter[1], self._counter[3] = member, epoch % _WORD
        self._bits.state = self._state
        return self._generator


def _philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> np.random.Philox:
    # As uint64 arrays: numpy would take a list with a number above 2**63 for floats, and round it.
    words = [np.array([number % _WORD for number in numbers], np.uint64) for numbers in (key, counter)]
    return np.random.Philox(key=words[0], counter=words[1])


class Ledger:
    """Rows of an index in the order in which training sees them.

    `rows`: int64 (n,), at least one. `shuffle=False` keeps their order in every epoch. A batch may cross the border of
    an epoch.
    """

    def __init__(self, rows: np.ndarray, seed: int, shuffle: bool = True) -> None:
        if len(rows) == 0:
            raise InputError("no sample to read: the split is empty. See: mmzoo data inspect FOLDER")
        self.rows = np.asarray(rows, np.int64)
        self.seed = seed
        self.shuffle = shuffle
        # Two epochs: a window may lie across a border.
        self._order = lru_cache(maxsize=2)(self._make_order)

    def __len__(self) -> int:
        return len(self.rows)

    def identity(self, split: str) -> str:
        """sha256 of all that decides which sample stands at a position: two equal ones may share a position."""
        what = {"algorithm": ALGORITHM, "seed": self.seed, "split": split, "shuffle": self.shuffle}
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
        digest.update(self.rows.astype("<i8").tobytes())
        return digest.hexdigest()

    def _make_order(self, epoch: int) -> np.ndarray:
        return self.rows[epoch_order(len(self.rows), self.seed, epoch)] if self.shuffle else self.rows

    def epoch_of(self, position: int) -> int:
        """The epoch that a position belongs to, counted from 0."""
        return position // len(self)

    def epoch_start(self, epoch: int) -> int:
        """The first position of an epoch."""
        return epoch * len(self)

    def next_epoch(self, position: int) -> int:
        """The first position of an epoch that is not before `position`."""
        return -(-position // len(self)) * len(self)

    def locate(self, position: int) -> tuple[int, int]:
        """(epoch, row) at a position >= 0."""
        if position < 0:
            raise ValueError(f"positions start at 0, not {position}")
        epoch, place = divmod(position, len(self))
        return epoch, int(self._order(epoch)[place])

    def rows_at(self, position: int) -> tuple[int, list[int]]:
        """(epoch, rows) at a position: one row here, the samples of a pack in a PackLedger."""
        epoch, row = self.locate(position)
        return epoch, [row]

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """All rows of an epoch in order, int64."""
        return self._order(epoch)

    def window(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(position, epoch, row) of the positions start, ..., stop - 1: `locate` of each, an epoch at a time."""
        if start < 0:
            raise ValueError(f"positions start at 0, not {start}")
        slots: list[tuple[int, int, int]] = []
        while start < stop:
            epoch, place = divmod(start, len(self))
            rows = self._order(epoch)[place : place + stop - start].tolist()
            slots += zip(range(start, start + len(rows)), repeat(epoch), rows)
            start += len(rows)
        return slots


def rank_window(start: int, stop: int, rank: int, ranks: int) -> tuple[int, int]:
    """The part of the global batch [start, stop) that `rank` reads; parts tile it in rank order, equal within one."""
    size = stop - start
    return start + rank * size // ranks, start + (rank + 1) * size // ranks

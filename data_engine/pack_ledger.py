"""The order of packs: a Ledger whose positions are rows of the model, each holding several samples.

The samples of an epoch, in the order of the ledger below, are packed window by window; the packs are then shuffled. All
of it follows from (seed, epoch, mixture, packing, lengths). Epochs have different numbers of packs, so to find a
position in a later epoch the earlier ones are packed too: about a microsecond a sample and epoch, once in a process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from data_engine.ledger import Ledger, part_order
from data_engine.over_long import Planned, checked
from data_engine.pack_balance import balanced
from data_engine.packing import pack_windows
from mmzoo.errors import InputError, suggestion

#: Stream of the shuffle of packs, apart from those of a mixture's parts.
_PACKS = 2**34
#: Raised when the same settings come to give other packs.
ALGORITHM = 1


@dataclass(frozen=True, slots=True)
class Packing:
    """How samples are packed. `capacity`: tokens of a row. `over_long`: policies, see over_long.py. `lengths`:
    "module:function", see sample_lengths.py. `window`: samples packed together (None: the whole epoch). `balance`: even
    out visual tokens between packs.
    """

    capacity: int
    over_long: tuple[str, ...]
    lengths: str
    window: int | None = 1024
    balance: bool = True

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Packing:
        """From a mapping. InputError: an unknown or missing key, or a value that cannot be."""
        known = list(cls.__slots__)
        for key in given:
            if key not in known:
                raise InputError(f"packing: no such key {key!r}.{suggestion(str(key), known)}")
        for key in ("capacity", "over_long", "lengths"):
            if key not in given:
                raise InputError(f"packing.{key} is missing: what it is must be said, there is no default")
        values = {**given, "over_long": checked(given["over_long"])}
        for key in ("capacity", "window"):
            value = values.get(key)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InputError(f"packing.{key} must be a whole number of at least 1, not {value!r}")
        return cls(**values)


class _Epoch(NamedTuple):
    rows: np.ndarray  # of all packs, one after the other
    ends: np.ndarray  # where each pack ends in them


class PackLedger(Ledger):
    """Packs over another ledger, whose rows are all kept ones. `len` is the number of packs of epoch 0."""

    def __init__(self, inner: Ledger, packing: Packing, plan: Planned) -> None:
        super().__init__(inner.rows, inner.seed, inner.shuffle)
        self.inner = inner
        self.packing = packing
        self.plan = plan
        self._starts = [0]
        self._epochs: dict[int, _Epoch] = {}

    def __len__(self) -> int:
        return self.epoch_start(1)

    def identity(self, split: str) -> str:
        """As Ledger.identity, of packing and lengths too."""
        what = {"packs": ALGORITHM, **asdict(self.packing), "below": self.inner.identity(split)}
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
        for tokens in (self.plan.text, self.plan.visual):
            digest.update(tokens.astype("<i8").tobytes())
        return digest.hexdigest()

    def epoch_of(self, position: int) -> int:
        """The epoch of a position."""
        epoch = 0
        while self.epoch_start(epoch + 1) <= position:
            epoch += 1
        return epoch

    def epoch_start(self, epoch: int) -> int:
        """The first position of an epoch; the ones before are packed for it."""
        while len(self._starts) <= epoch:
            number = len(self._starts) - 1
            self._starts.append(self._starts[-1] + len(self._packed(number).ends))
        return self._starts[epoch]

    def next_epoch(self, position: int) -> int:
        """The first position of an epoch that is not before `position`."""
        epoch = self.epoch_of(position)
        return position if self.epoch_start(epoch) == position else self.epoch_start(epoch + 1)

    def rows_at(self, position: int) -> tuple[int, list[int]]:
        """(epoch, rows of the pack at a position)."""
        if position < 0:
            raise ValueError(f"positions start at 0, not {position}")
        epoch = self.epoch_of(position)
        packs, place = self._packed(epoch), position - self.epoch_start(epoch)
        start = int(packs.ends[place - 1]) if place else 0
        return epoch, packs.rows[start : int(packs.ends[place])].tolist()

    def locate(self, position: int) -> tuple[int, int]:
        """(epoch, first row) at a position."""
        epoch, rows = self.rows_at(position)
        return epoch, rows[0]

    def window(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(position, epoch, first row) of some positions."""
        return [(position, *self.locate(position)) for position in range(start, stop)]

    def _packed(self, epoch: int) -> _Epoch:
        """Kept for two epochs: a window may lie across a border."""
        if epoch not in self._epochs:
            found = self._pack(epoch)
            while len(self._epochs) > 1:
                del self._epochs[min(self._epochs)]
            self._epochs[epoch] = found
        return self._epochs[epoch]

    def _pack(self, epoch: int) -> _Epoch:
        rows = self.inner.epoch_rows(epoch)
        total, visual = self.plan.total[rows], self.plan.visual[rows]
        bins = pack_windows(total, self.packing.capacity, self.packing.window)
        if self.packing.balance:
            bins = balanced(bins, total, visual, self.packing.capacity)
        if self.shuffle:
            bins = [bins[number] for number in part_order(len(bins), self.seed, _PACKS, epoch).tolist()]
        members = np.concatenate([np.asarray(bin_, np.int64) for bin_ in bins])
        return _Epoch(rows[members], np.cumsum([len(bin_) for bin_ in bins]))

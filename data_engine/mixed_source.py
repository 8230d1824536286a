"""The sources of a mixture as one index and one reader, so that the loader sees a single source.

Rows are numbered through: first all rows of the first source, then those of the second, ... A sample's `source` is its
name in the mixture.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.broken_samples import BrokenSampleError, Fault
from data_engine.decode import DecodeRules
from data_engine.index import ShardIndex
from data_engine.ledger import Ledger
from data_engine.mixture import Share, shares
from data_engine.mixture_grammar import Mixture
from data_engine.mixture_ledger import MixtureLedger
from data_engine.over_long import POLICIES, Planned, planned
from data_engine.pack_ledger import Packing, PackLedger
from data_engine.reader import ShardReader
from data_engine.records import Sample
from data_engine.remote import RemoteSettings, open_index
from data_engine.sample_lengths import measured
from mmzoo.errors import InputError, suggestion


class MixedIndex:
    """The rows of all sources. `starts`: first row of each source, and the number of all rows."""

    def __init__(self, mixture: Mixture, indexes: dict[str, ShardIndex], packing: Packing | None = None) -> None:
        self.mixture = mixture
        self.packing = packing
        self._plan: Planned | None = None
        self._ledgers: dict[tuple[str, int, bool], Ledger] = {}
        self.indexes = indexes
        self.names = list(indexes)
        self._parts = list(indexes.values())
        self.starts = np.concatenate([[0], np.cumsum([index.count for index in self._parts])]).astype(np.int64)
        self.count = int(self.starts[-1])
        self._starts: list[int] = self.starts.tolist()
        self.folder: Path = self._parts[0].folder
        self.fields: list[str] = self._parts[0].fields
        listed = json.dumps([[name, index.identity] for name, index in indexes.items()])
        self.identity = hashlib.sha256(listed.encode()).hexdigest()

    @classmethod
    def open(cls, mixture: Mixture, packing: Packing | None = None, remote: RemoteSettings | None = None) -> MixedIndex:
        """Opens every source; `remote`: where those at a URL are kept.

        InputError: a folder that is missing (nearest name beside it) or holds no shards, a URL that does not answer.
        """
        opened = {name: _open_source(name, place, remote) for name, place in mixture.sources.items()}
        return cls(mixture, opened, packing)

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the ledgers and lengths: a worker is told what to read.
        return MixedIndex, (self.mixture, self.indexes, self.packing)

    @property
    def remedy(self) -> str:
        """What to do about broken samples."""
        return "Check with: mmzoo data lint FOLDER, the folder of that source"

    def split_rows(self, split: str) -> np.ndarray:
        """Rows of a split of every source, ascending; a source without that split has none in it."""
        return np.concatenate([self._rows_of(number, split) for number in range(len(self._parts))])

    def all_rows(self, split: str) -> np.ndarray:
        """As split_rows, with those that are too long for a pack and were dropped."""
        return np.concatenate([self._stored_rows(number, split) for number in range(len(self._parts))])

    def _rows_of(self, number: int, split: str) -> np.ndarray:
        rows = self._stored_rows(number, split)
        return rows if self.packing is None else rows[self.plan.kept[rows]]

    def _stored_rows(self, number: int, split: str) -> np.ndarray:
        index = self._parts[number]
        if split == "val" and split not in index.splits:
            return np.empty(0, np.int64)
        return index.split_rows(split) + self.starts[number]

    @property
    def plan(self) -> Planned:
        """Tokens of every row under the packing. InputError: an over-long sample that the policy forbids."""
        assert self.packing is not None
        if self._plan is None:
            lengths = np.concatenate([measured(index, self.packing.lengths) for index in self._parts])
            self._plan, forbidden = planned(lengths, self.packing.capacity, self.packing.over_long)
            if forbidden is not None:
                number, row = self.source_of(forbidden)
                limit = self.packing.capacity
                raise InputError(
                    f"source {self.names[number]}, key {self._parts[number].key(row)}: {lengths[forbidden, 0]} text "
                    f"and {lengths[forbidden, 1]} visual tokens are more than packing.capacity {limit}. "
                    f"Raise it, or choose another packing.over_long: {', '.join(POLICIES[1:])}"
                )
        return self._plan

    def shares(self, split: str = "train") -> list[Share]:
        """What each source gives to an epoch."""
        rows = {name: len(self._rows_of(number, split)) for number, name in enumerate(self.names)}
        for number, name in enumerate(self.names):
            if self.packing is not None and not rows[name] and len(self._parts[number].split_rows(split)):
                raise InputError(
                    f"mixture: every sample of source {name!r} is longer than packing.capacity "
                    f"{self.packing.capacity} and was dropped. Raise it, or take the source out"
                )
        return shares(self.mixture.root, rows)

    def ledger(self, split: str, seed: int, shuffle: bool, global_batch: int) -> Ledger:
        """The order: of the mixture in training, of all rows, each once, in another split; of packs where it packs.

        InputError: a global batch that the quotas do not fill evenly.
        """
        root = self.mixture.root
        quotas = [int(part.amount) for part in root.parts] if root.how == "quota" else []
        if quotas and self.packing is not None:
            raise InputError(
                "mixture: quotas count samples of a batch, and a batch of packs has no fixed number. Use weight"
            )
        if quotas and split != "val" and global_batch % sum(quotas):
            raise InputError(
                f"mixture: quotas add up to {sum(quotas)}, which does not divide global_batch {global_batch}"
            )
        if (split, seed, shuffle) not in self._ledgers:
            ledger = self._samples(split, seed, shuffle, quotas)
            packed = ledger if self.packing is None else PackLedger(ledger, self.packing, self.plan)
            self._ledgers[split, seed, shuffle] = packed
        return self._ledgers[split, seed, shuffle]

    def _samples(self, split: str, seed: int, shuffle: bool, quotas: list[int]) -> Ledger:
        if split == "val":
            return Ledger(self.split_rows(split), seed, shuffle)
        found = self.shares(split)
        rows = [self._rows_of(self.names.index(share.source), split) for share in found]
        return MixtureLedger(found, rows, seed, shuffle, quotas)

    def source_of(self, row: int) -> tuple[int, int]:
        """(number of the source, row in it)."""
        number = bisect_right(self._starts, row) - 1
        return number, row - self._starts[number]

    def consumed(self, rows: np.ndarray) -> dict[str, int]:
        """How many of some rows belong to each source, every source named."""
        numbers = np.searchsorted(self.starts, rows, "right") - 1
        return dict(zip(self.names, np.bincount(numbers, minlength=len(self.names)).tolist(), strict=True))

    def places(self, rows: Sequence[int] | np.ndarray) -> Sequence[Any]:
        """Where each row lies in its source."""
        rows = np.asarray(rows, np.int64)
        numbers = np.searchsorted(self.starts, rows, "right") - 1
        found: list[Any] = [None] * len(rows)
        for number in np.unique(numbers).tolist():
            own = np.flatnonzero(numbers == number)
            placed = self._parts[number].places(rows[own] - self.starts[number])
            for slot, place in zip(own.tolist(), placed, strict=True):
                found[slot] = place
        return found


def _open_source(name: str, folder: Path | str, remote: RemoteSettings | None) -> ShardIndex:
    if isinstance(folder, Path) and not folder.is_dir():
        beside = sorted(path.name for path in folder.parent.iterdir()) if folder.parent.is_dir() else []
        raise InputError(f"mixture.sources.{name}: there is no folder {folder}.{suggestion(folder.name, beside)}")
    try:
        return open_index(folder, remote)
    except InputError as mistake:
        raise InputError(f"mixture.sources.{name}: {mistake}") from None


class MixedReader:
    """The readers of all sources as one. `cache_bytes`: of decoded images, shared out evenly."""

    def __init__(self, index: MixedIndex, rules: DecodeRules | None = None, cache_bytes: int = 0) -> None:
        self.index = index
        each = cache_bytes // len(index.names)
        self.readers = [ShardReader(part, rules, each) for part in index.indexes.values()]

    def _at(self, row: int) -> tuple[str, ShardReader, int]:
        number, own = self.index.source_of(row)
        return self.index.names[number], self.readers[number], own

    def sample(self, row: int, place: Any = None) -> Sample:
        """The decoded sample of a row. BrokenSampleError: its own bytes are damaged."""
        name, reader, own = self._at(row)
        try:
            sample = reader.sample(own, place)
        except BrokenSampleError as error:
            raise BrokenSampleError(replace(error.fault, source=name), reader.index.remedy) from None
        # Not dataclasses.replace, which takes as long as reading the sample's json.
        return Sample(sample.key, name, sample.fields, sample.meta)

    def key(self, row: int) -> str:
        """Key of a row in its source."""
        _, reader, own = self._at(row)
        return reader.key(own)

    def size(self, row: int) -> int:
        """Bytes of the first member of a row."""
        _, reader, own = self._at(row)
        return reader.size(own)

    def meta(self, row: int) -> dict[str, Any]:
        """The json of a sample."""
        _, reader, own = self._at(row)
        return reader.meta(own)

    def fault(self, row: int, field: str, reason: str) -> Fault:
        """The record of a fault in a sample; a field that its source lacks stands for the first one."""
        name, reader, own = self._at(row)
        field = field if field in reader.index.fields else reader.index.fields[0]
        return replace(reader.fault(own, field, reason), source=name)

    def broken(self, row: int, field: str, reason: str) -> BrokenSampleError:
        """The error of a fault in a sample."""
        _, reader, _ = self._at(row)
        return BrokenSampleError(self.fault(row, field, reason), reader.index.remedy)

    def location(self, row: int) -> str:
        """Where a row lies, for messages."""
        return self.fault(row, self.index.fields[0], "").where

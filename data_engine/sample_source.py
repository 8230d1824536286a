"""What the loader needs of the place that samples come from: shards, or anything else that can be numbered and read.

A source is two objects. The index says how many rows there are and where each lies; it opens quickly and travels to
workers. The reader makes the sample of a row. Order, ranks, workers, resume, quarantine are the loader's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data_engine.broken_samples import BrokenSampleError, Fault
from data_engine.records import Sample


class SampleIndex(Protocol):
    """The rows of a source, 0 to `count` - 1.

    `fields`: its members, first the one that faults are named after; `folder`: where it lies; `identity`: sha256 of
    what the rows are; `remedy`: what a user may do about broken samples, as the end of a sentence.
    """

    fields: list[str]
    folder: Path
    count: int
    identity: str

    @property
    def remedy(self) -> str: ...

    def split_rows(self, split: str) -> np.ndarray:
        """Rows of "train", "val" or "all", int64, ascending. InputError: no such split."""
        ...

    def places(self, rows: Sequence[int] | np.ndarray) -> Sequence[Any]:
        """What the reader is told about each row, so that workers need not look it up."""
        ...


class SampleReader(Protocol):
    """Makes samples by row. BrokenSampleError: the sample's own bytes are damaged. InputError: the source is."""

    @property
    def index(self) -> SampleIndex: ...

    def sample(self, row: int, place: Any = None) -> Sample:
        """The sample of a row; `place`: as `places` gave it, if known."""
        ...

    def fault(self, row: int, field: str, reason: str) -> Fault:
        """The record of a fault in a sample."""
        ...

    def broken(self, row: int, field: str, reason: str) -> BrokenSampleError:
        """The error of a fault in a sample."""
        ...

    def location(self, row: int) -> str:
        """Where a row lies, for messages."""
        ...

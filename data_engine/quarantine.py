"""Broken samples of a run: each one is written down once, and too many of them end the run.

The file has one JSON object a line: `source, shard, key, offset` (bytes into the shard), `reason`, and where the sample
was first met: `split`, `epoch`, `position`. All ranks of a run, and all its resumed starts, append to the same file
under a lock, so its number of lines is the number that the budget speaks of.
"""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from data_engine.broken_samples import Fault
from mmzoo.errors import InputError

QUARANTINE_FILE = "quarantine.jsonl"
Name = tuple[str, str, str]  # source, shard, key


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """How many different broken samples a run puts up with.

    `max_broken`: a number. `max_broken_share`: a share, 0 to 1, of the samples in the index, all splits. Each limit
    that is given holds; without any, the first broken sample ends the run.
    """

    max_broken: int | None = None
    max_broken_share: float | None = None

    def __post_init__(self) -> None:
        if self.max_broken is not None and self.max_broken < 0:
            raise InputError(f"max_broken must not be negative: {self.max_broken}")
        if self.max_broken_share is not None and not 0 <= self.max_broken_share <= 1:
            raise InputError(f"max_broken_share must be in 0 to 1, not {self.max_broken_share}")

    def exceeded(self, broken: int, samples: int) -> str | None:
        """Which limit does not hold for `broken` of `samples`, in words; None while all do."""
        if self.max_broken is not None and broken > self.max_broken:
            return f"max_broken is {self.max_broken}"
        if self.max_broken_share is not None and broken > self.max_broken_share * samples:
            return f"max_broken_share is {self.max_broken_share:g} of {samples} samples"
        if self.max_broken is None and self.max_broken_share is None and broken:
            return "without max_broken or max_broken_share none is tolerated"
        return None


@dataclass(frozen=True, slots=True)
class BrokenSample:
    """A fault, and the place in the sequence where it was met."""

    fault: Fault
    split: str
    epoch: int
    position: int

    @property
    def name(self) -> Name:
        return self.fault.source, self.fault.shard, self.fault.key

    def as_row(self) -> dict[str, Any]:
        """Its line in the file."""
        fault = asdict(self.fault)
        del fault["in_folder"]
        return {**fault, "split": self.split, "epoch": self.epoch, "position": self.position}


class Quarantine:
    """The samples found broken so far. `samples`: how many the index has; `file`: the list, or None to keep none."""

    def __init__(
        self, budget: ErrorBudget, samples: int, file: Path | None = None, remedy: str = "Mend the samples"
    ) -> None:
        self.budget = budget
        self.samples = samples
        self.file = file
        self.remedy = remedy  #: what to do about broken samples, as the start of a sentence
        self.known: set[Name] = set()
        self._read = 0  # bytes of the file that `known` covers

    def add(self, found: Sequence[BrokenSample]) -> None:
        """Notes the broken samples of a batch. InputError, naming the last one and the file, when the budget is spent.

        A sample that is met again (next epoch, after a resume, on another rank) is neither written nor counted again.
        """
        if not found:
            return
        before = len(self.known)
        if self.file is None:
            self.known.update(sample.name for sample in found)
        else:
            self._append(self.file, found)
        limit = self.budget.exceeded(len(self.known), self.samples)
        last = found[-1].fault
        if limit:
            listed = f", listed in {self.file}" if self.file else ""
            raise InputError(
                f"{last.where}: {last.reason}. {len(self.known)} of {self.samples} samples are broken{listed}; {limit}."
                f" {self.remedy}, or allow more"
            )
        if before == 0:
            where = f"; all are listed in {self.file}" if self.file else ""
            sys.stderr.write(f"note: broken sample left out: {last.where}: {last.reason}{where}\n")

    def _append(self, file: Path, found: Sequence[BrokenSample]) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a+b") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                whole = self._catch_up(stream)
                new: dict[Name, BrokenSample] = {}
                for sample in found:
                    if sample.name not in self.known:
                        new.setdefault(sample.name, sample)
                lines = [json.dumps(sample.as_row(), ensure_ascii=False) for sample in new.values()]
                text = "".join(f"{line}\n" for line in lines).encode()
                stream.write(text if whole else b"\n" + text)
                stream.flush()
                self._catch_up(stream)
        except OSError as fault:
            raise InputError(
                f"{file} cannot be written ({fault.strerror}). Free space, or choose a writable folder."
            ) from None

    def _catch_up(self, stream: BinaryIO) -> bool:
        """Learns what stands in the file since the last look; whether its last line is whole."""
        stream.seek(self._read)
        data = stream.read()
        whole, _, rest = data.rpartition(b"\n")
        for line in whole.splitlines():
            try:
                row = json.loads(line)
                self.known.add((row["source"], row["shard"], row["key"]))
            except (ValueError, LookupError, TypeError):
                continue  # half a line, of a process that was killed while it wrote
        self._read += len(data) - len(rest)
        return not rest

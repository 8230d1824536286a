"""Finds the records that a leaderboard is made of, proves each one against its sample log, and keeps the newest.

Nothing is left out silently: a damaged record ends the build by name, and an older record of the same model, suite
and data is listed as superseded. Copies of one record, byte for byte, count once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from eval_suites.leaderboard.proving import prove
from eval_suites.record import RECORD_FILE, EvalRecord, read_record
from eval_suites.sample_log import SampleRow, read_stamped_log
from mmzoo.errors import InputError


@dataclass(frozen=True)
class Entry:
    """A record that holds, and the rows behind it. digest: sha256 (hex) of the record file."""

    record: EvalRecord
    path: Path
    digest: str
    rows: Sequence[SampleRow]

    @property
    def folder_name(self) -> str:
        """Where its copies lie below records/: the model's name as a file name, and what tells it from all others."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", self.record.model.name).strip("-.") or "model"
        return f"{plain[:60]}-{self.digest[:8]}"

    def values(self, metric: str) -> dict[str, float]:
        """The metric's value in each row that has one, by the sample's key; empty for a number of the whole set."""
        return {row.key: row.values[metric] for row in self.rows if metric in row.values}


@dataclass(frozen=True)
class Superseded:
    """A record that a newer one of the same model, suite, settings and data replaces."""

    old: Entry
    new: Entry


def record_files(paths: Sequence[Path], leave_out: Path) -> list[Path]:
    """The record files among `paths` and below the folders among them, except below `leave_out`; sorted.

    InputError: a path that is not there, or a folder without any record.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise InputError(f"there is no {path}. Give record files, or folders that hold them.")
        below = [path] if path.is_file() else list(_below(path, leave_out.resolve()))
        if not below:
            raise InputError(f"{path} holds no {RECORD_FILE}. Make one with: mmzoo eval run")
        found.update(dict.fromkeys(below))
    return sorted(found)


def _below(folder: Path, leave_out: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob(RECORD_FILE)):
        if leave_out not in file.resolve().parents:
            yield file


def read_entry(path: Path) -> Entry:
    """A record with its rows. InputError: damaged, or it does not say what its sample log says."""
    record = read_record(path)
    try:
        if datetime.fromisoformat(record.date).tzinfo is None:
            raise ValueError("no time zone")
    except ValueError as fault:
        raise InputError(
            f"{path}: the date {record.date!r} is none ({fault}). Measure again: mmzoo eval run"
        ) from fault
    stated, rows = read_stamped_log(path.parent, record.samples)
    prove(path, record, stated, rows)
    return Entry(record, path, hashlib.sha256(path.read_bytes()).hexdigest(), rows)


def gather(paths: Sequence[Path], leave_out: Path) -> tuple[list[Entry], list[Superseded]]:
    """What goes into tables, sorted by file, and what is superseded."""
    distinct: dict[str, Entry] = {}
    for path in record_files(paths, leave_out):
        entry = read_entry(path)
        distinct.setdefault(entry.digest, entry)
    newest: dict[tuple[str, str], Entry] = {}
    for entry in distinct.values():
        key = (entry.record.comparable, entry.record.model.identity)
        newest[key] = max(newest.get(key, entry), entry, key=_age)
    kept = list(newest.values())
    old = [entry for entry in distinct.values() if entry not in kept]
    return kept, [Superseded(entry, newest[entry.record.comparable, entry.record.model.identity]) for entry in old]


def _age(entry: Entry) -> tuple[datetime, str]:
    """Newest last; of two of one second, the one with the higher hash, so that any order of files gives one answer."""
    return datetime.fromisoformat(entry.record.date), entry.digest

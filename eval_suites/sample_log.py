"""The sample log: one line a sample, written as it is measured, so that a killed evaluation goes on where it was.

JSON lines. The first one states what is measured (`stamp`); a log is only ever continued under an equal one. Then one
row a sample:

    {"key": "coffee#0", "group": "coffee", "values": {"psnr@1": 21.4, "psnr@4": "inf"}, "more": {}}

`values` are named as the record's metrics are: a metric that is a mean over samples is the mean of that column, and two
models are compared on the rows they share. `more`: whatever else a suite needs to finish from the log alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import Any

from eval_suites.record import SampleLogStamp
from eval_suites.strict_json import from_plain, parse, plain_json, to_plain
from mmzoo.durable_files import refused_writes_named, sha256_of, write_text
from mmzoo.errors import InputError

SCHEMA = 1
SAMPLES_FILE = "samples.jsonl"


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One sample. key: unique in the log. group: what it is resampled with (the photograph of a crop).

    ValueError: a value that is NaN or -inf.
    """

    key: str
    group: str
    values: Mapping[str, float]
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.values.items():
            if math.isnan(value) or value == -math.inf:
                raise ValueError(f"{name!r} is {value}, which has no place in a mean: NaN or -inf")


class SampleLog:
    """A log that is being written. `rows`: what is in it, also from before this process. Use it as a context manager.

    A line is handed to the system when its row is appended: a killed process loses nothing but the row in the making.
    InputError: another stamp, a damaged line, a key twice, a place that cannot be written.
    """

    def __init__(self, path: Path, stamp: Mapping[str, Any]) -> None:
        self.path = path
        self.rows: list[SampleRow] = []
        header = {"schema": SCHEMA, "stamp": plain_json(dict(stamp))}
        with refused_writes_named(path):
            if not path.is_file() or not _whole_lines(path.read_bytes()):  # killed before the header was there
                write_text(path, json.dumps(header, allow_nan=False) + "\n")
            self._file: BufferedRandom = path.open("r+b")
        try:
            self._resume(header["stamp"])
        except BaseException:
            self._file.close()
            raise
        self._keys = {row.key for row in self.rows}

    def _resume(self, stamp: Any) -> None:
        content = _whole_lines(self._file.read())
        found, self.rows = _parse(self.path, content)
        changed = sorted(name for name in {*found, *stamp} if found.get(name) != stamp.get(name))
        if changed:
            raise InputError(
                f"{self.path} was begun under other settings ({', '.join(changed)}). Choose another --out."
            )
        self._file.seek(len(content))
        self._file.truncate()  # the half line of a killed process

    def __enter__(self) -> SampleLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the writing; calling it twice is harmless."""
        self._file.close()

    def __contains__(self, key: str) -> bool:
        """Whether the sample of this key is done."""
        return key in self._keys

    def append(self, row: SampleRow) -> None:
        """Adds a row. ValueError: its key is there, or a value is NaN."""
        if row.key in self._keys:
            raise ValueError(f"the sample {row.key!r} is in {self.path} already")
        line = json.dumps(to_plain(row), allow_nan=False) + "\n"
        with refused_writes_named(self.path):
            self._file.write(line.encode())
            self._file.flush()
        self.rows.append(row)
        self._keys.add(row.key)

    def stamp(self) -> SampleLogStamp:
        """What the record says of this log."""
        return SampleLogStamp(self.path.name, sha256_of(self.path), len(self.rows))


def read_sample_log(folder: Path, stamp: SampleLogStamp) -> list[SampleRow]:
    """The rows of a finished log in `folder`. InputError: absent, changed since the record was written, or damaged."""
    return read_stamped_log(folder, stamp)[1]


def read_stamped_log(folder: Path, stamp: SampleLogStamp) -> tuple[Mapping[str, Any], list[SampleRow]]:
    """What a finished log says that it measures, and its rows. InputError: see read_sample_log."""
    path = folder / stamp.file
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise InputError(
            f"the sample log {path} cannot be read ({fault.strerror}). Keep it beside its record, or measure again."
        ) from fault
    if hashlib.sha256(content).hexdigest() != stamp.sha256:
        raise InputError(f"{path} has changed since its record was written (sha256). Measure again: mmzoo eval run")
    stated, rows = _parse(path, content)
    if len(rows) != stamp.rows:
        raise InputError(f"{path} holds {len(rows)} rows, its record says {stamp.rows}. Measure again: mmzoo eval run")
    return stated, rows


def _whole_lines(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]


def _parse(path: Path, content: bytes) -> tuple[Mapping[str, Any], list[SampleRow]]:
    """The stamp and the rows; InputError names the line."""
    rows: list[SampleRow] = []
    stamp: Mapping[str, Any] = {}
    number, keys = 0, set()
    try:
        for number, line in enumerate(content.splitlines(), start=1):
            if number == 1:
                stamp = _stamp_in(parse(line))
                continue
            row = from_plain(SampleRow, parse(line))
            if row.key in keys:
                raise ValueError(f"the sample {row.key!r} stands there twice")
            keys.add(row.key)
            rows.append(row)
    except ValueError as fault:  # InputError is one
        raise InputError(f"{path}, line {number}: {fault}. Remove the file and measure again.") from fault
    return stamp, rows


def _stamp_in(header: Any) -> Mapping[str, Any]:
    if not isinstance(header, dict) or header.get("schema") != SCHEMA or not isinstance(header.get("stamp"), dict):
        raise ValueError(f"no sample log of schema {SCHEMA}")
    return header["stamp"]

"""A build in parts: the samples of all sources, cut into runs of a few hundred, each written by one process.

Where a part ends follows from the samples alone, and its name is the hash of what it is made from. So the number of
processes changes nothing, and after a kill the parts that are whole are used again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_engine.build_config import BuildConfig
from data_engine.record_members import RecordMembers, pack_record
from data_engine.record_rows import record_row
from data_engine.record_transforms import TransformCounts, transformed
from data_engine.removals import ListedRemoval
from data_engine.shards import member_header, padded
from data_engine.stored_sample import StoredFile, StoredSample
from mmzoo.errors import InputError

PART_SAMPLES = 512
PART_BYTES = 64_000_000  # of files, known from their sizes; a part ends with the sample that passes it
PART_RULES = 1  # a part of other rules is made again


@dataclass(slots=True)
class Part:
    """A run of samples, read from the sources and not yet judged; `name` is the hash of all that decides its bytes."""

    samples: list[StoredSample] = field(default_factory=list)
    bytes: int = 0
    passed_over: int = 0
    digest: Any = field(default_factory=lambda: hashlib.sha256(f"part {PART_RULES}".encode()))

    @classmethod
    def of(cls, transforms: Sequence[str]) -> Part:
        """A part without a sample yet, of samples that go through these transforms."""
        part = cls()
        for name in transforms:
            part.digest.update(f"transform {name}".encode())
        return part

    @property
    def name(self) -> str:
        return self.digest.hexdigest()[:32]

    def add(self, sample: StoredSample) -> None:
        """Appends a sample, with the size and date of its files."""
        self.samples.append(sample)
        self.digest.update(repr(sample).encode("utf-8", "backslashreplace"))
        for file in sample.files:
            size, stamp = _stamp(file)
            self.bytes += size
            self.digest.update(stamp)

    def pass_over(self, sample: StoredSample) -> None:
        """Counts a sample that is left out, so that all others stay in the parts they are in without a list."""
        self.passed_over += 1
        self.bytes += sum(_stamp(file)[0] for file in sample.files)

    @property
    def full(self) -> bool:
        """Whether another sample belongs to the next part."""
        return len(self.samples) + self.passed_over >= PART_SAMPLES or self.bytes >= PART_BYTES


def _stamp(file: StoredFile) -> tuple[int, bytes]:
    """Size in bytes, and what changes when the file does; a file that is absent has a stamp, too."""
    if file.data is not None:
        return len(file.data), hashlib.sha256(file.data).digest()
    try:
        status = Path(file.path or file.name).stat()
    except OSError as fault:
        return 0, f"errno {fault.errno}".encode()
    return file.size or status.st_size, f"{status.st_size} {status.st_mtime_ns}".encode()


def read_parts(config: BuildConfig) -> Iterator[Part]:
    """The samples of all sources but those of `config.without`, in parts.

    InputError: an annotation that is damaged; a source without a sample; a list that does not fit the sources.
    """
    part = Part.of(config.transforms)
    unseen = set(config.without)
    for placed in config.sources:
        empty = True
        for sample in placed.source.samples():
            empty = False
            if sample.key in config.without:
                _check_listed(sample, config.without[sample.key])
                unseen.discard(sample.key)
                part.pass_over(sample)
            else:
                part.add(sample)
            if part.full:
                yield from _filled(part)
                part = Part.of(config.transforms)
        if empty:
            raise InputError(f"source {placed.source.name!r} has no sample. Mend its paths, or take it out")
    yield from _filled(part)
    if unseen:
        raise InputError(f"without: {min(unseen)!r} is in none of the sources. Take the list of a build of these")


def _filled(part: Part) -> Iterator[Part]:
    """The part, if anything is in it."""
    if part.samples:
        yield part


def _check_listed(sample: StoredSample, listed: ListedRemoval) -> None:
    """InputError: the key, a row number, now means another file or line than when the list was made."""
    if listed.path is not None and listed.path != (sample.origin or sample.key):
        raise InputError(
            f"without: {sample.key} was {listed.path!r} when the list was made and is {sample.origin!r} now: the "
            "sources have changed. Build without the list, and clean again"
        )


@dataclass(frozen=True, slots=True)
class PartFile:
    """A part that is written: `<name>.tar`, the members of its samples, and `<name>.json`, what is known of them.

    `rows`: one a sound sample, in order; see record_rows.py. `rejected`: of the others source, origin, key, reason.
    `rules`: how often each image rule of decode.py applied.
    """

    name: str
    rows: list[dict[str, Any]]
    rejected: list[dict[str, str]]
    rules: dict[str, int]
    transforms: TransformCounts = field(default_factory=dict)


def read_part(folder: Path, name: str) -> PartFile | None:
    """A part that was written whole, or None."""
    try:
        content = json.loads((folder / f"{name}.json").read_bytes())
        if (folder / f"{name}.tar").stat().st_size != content["bytes"]:
            return None
        return PartFile(name, content["rows"], content["rejected"], content["rules"], content.get("transforms", {}))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def write_part(folder: Path, name: str, samples: Sequence[StoredSample], transforms: Sequence[str] = ()) -> None:
    """Judges the samples and writes the part; it is there whole, or not at all. OSError: the disk refuses."""
    rows, rejected, rules, counts = [], [], Counter(), {}
    building = folder / f"{name}.tar.building"
    with building.open("wb") as file:
        for given in samples:
            sample = given
            try:
                sample = transformed(given, transforms, counts)
                record = pack_record(sample, rules)
            except InputError as mistake:
                where = {"source": sample.source, "origin": sample.origin, "key": sample.key}
                rejected.append({**where, "reason": str(mistake)})
                continue
            rows.append(record_row(sample, record, _write(file, sample.key, record)))
        size = file.tell()
        _flush(file)
    building.rename(folder / f"{name}.tar")
    content = {"bytes": size, "rows": rows, "rejected": rejected, "rules": dict(rules), "transforms": counts}
    notes = folder / f"{name}.json.building"
    with notes.open("wb") as file:
        file.write(json.dumps(content).encode())
        _flush(file)
    notes.rename(folder / f"{name}.json")


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _write(file: Any, key: str, record: RecordMembers) -> list[tuple[str, int, int]]:
    """Appends the members; returns (field, offset from the sample's start, size) of each, in bytes."""
    start, places = file.tell(), []
    for name, (extension, data) in record.members.items():
        file.write(member_header(f"{key}.{extension}", len(data)))
        places.append((name, file.tell() - start, len(data)))
        file.write(data + bytes(padded(len(data)) - len(data)))
    return places

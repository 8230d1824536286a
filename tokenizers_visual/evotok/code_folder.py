"""A folder of code shards while it is being written: finished shards stay, whatever happens, and nothing else does.

encode.json            the settings; another run may continue only with equal ones
model_receipt.json     which weights made the codes (mmzoo.hub.receipt)
quarantine.jsonl       the broken pictures that were left out, if any
shard-000000.tar ...   `<key>.codes.npy` and the other members of each sample
.finished/*.json       one record a finished shard, until the index is there
.lock                  while a writer is at work (mmzoo.folder_lock)
index/                 written last: without it the folder is no shard folder to any reader
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.index import INDEX_FILE, INDEX_FOLDER, key_hash, write_index
from data_engine.quarantine import QUARANTINE_FILE
from data_engine.shards import ShardFile, ShardWriter, shard_name
from mmzoo.durable_files import flush, refused_writes_named, sweep_temporaries, write_text
from mmzoo.errors import InputError
from mmzoo.folder_lock import LOCK_FILE, only_writer

SETTINGS_FILE = "encode.json"
RECEIPT_FILE = "model_receipt.json"
SCHEMA = 1
ONE_FILE = 2**62  # bytes: the writer of one shard never begins a second one
FINISHED, BUILDING = ".finished", ".building"


@dataclass(slots=True)
class FinishedShard:
    """What is known of a shard that is whole; None for one in which no picture was sound.

    Lists have one entry a sample, in order; `offset` and `size` one list a sample, in the order of the index's fields.
    `rules` counts the image rules that applied, `skipped` the files that are no images.
    """

    shard: ShardFile | None = None
    key: list[str] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    width: list[int] = field(default_factory=list)
    height: list[int] = field(default_factory=list)
    offset: list[list[int]] = field(default_factory=list)
    size: list[list[int]] = field(default_factory=list)
    rules: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    broken: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> FinishedShard:
        """The record back from its file."""
        values = json.loads(text)
        shard = values.pop("shard")
        return cls(shard=ShardFile(**shard) if shard else None, **values)


class CodeFolder:
    """One writer's view of the folder; see `opened`."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = settings

    @property
    def complete(self) -> bool:
        """Whether the index stands: then all shards do."""
        return (self.folder / INDEX_FOLDER / INDEX_FILE).is_file()

    @property
    def quarantine(self) -> Path:
        """Where broken pictures are listed."""
        return self.folder / QUARANTINE_FILE

    def finished(self, number: int) -> FinishedShard | None:
        """The record of a finished shard; None when it must be written (again)."""
        try:
            record = FinishedShard.from_json(self._record(number).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        shard = record.shard
        if shard is not None:
            tar = self.folder / shard.name
            if not tar.is_file() or tar.stat().st_size != shard.bytes:
                return None
        return record

    @contextmanager
    def writing(self, number: int) -> Iterator[tuple[ShardWriter, FinishedShard]]:
        """A writer for shard `number` and its record to fill; the shard is there when the block ends well."""
        building = self.folder / BUILDING
        with refused_writes_named(self.folder):
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir()
            record = FinishedShard()
            try:
                with ShardWriter(building, ONE_FILE) as writer:
                    yield writer, record
                self._keep(number, writer, record)
            finally:
                shutil.rmtree(building, ignore_errors=True)

    def _keep(self, number: int, writer: ShardWriter, record: FinishedShard) -> None:
        if writer.shards:
            record.shard = replace(writer.shards[0], name=shard_name(number))
            written = self.folder / BUILDING / writer.shards[0].name
            flush(written)
            written.replace(self.folder / record.shard.name)
            flush(self.folder)
        write_text(self._record(number), json.dumps(asdict(record)))

    def finish(self, records: list[FinishedShard], splits: tuple[list[str], list[str]], more: dict[str, Any]) -> None:
        """Writes the index over all shards; from then on the folder is a shard folder. `more`: see write_index."""
        kept = [record for record in records if record.shard is not None]
        names, chosen = splits
        counts = {name: chosen.count(name) for name in names}
        description = {**more, "kind": "codes", "splits": {"names": names, "counts": counts}}
        with refused_writes_named(self.folder):
            write_index(self.folder, description, [r.shard for r in kept if r.shard], _columns(kept, names, chosen))
            flush(self.folder)
        shutil.rmtree(self.folder / FINISHED, ignore_errors=True)

    def _record(self, number: int) -> Path:
        return self.folder / FINISHED / f"{shard_name(number)}.json"


def _columns(records: list[FinishedShard], names: list[str], splits: list[str]) -> dict[str, np.ndarray]:
    def joined(name: str) -> list[Any]:
        return [value for record in records for value in getattr(record, name)]

    return {
        "shard": np.repeat(np.arange(len(records), dtype=np.int32), [len(record.key) for record in records]),
        "offset": np.array(joined("offset"), np.int64),
        "size": np.array(joined("size"), np.int64),
        "key_hash": np.array([key_hash(key) for key in joined("key")], np.uint64),
        "split": np.array([names.index(split) for split in splits], np.uint8),
        "width": np.array(joined("width"), np.int32),
        "height": np.array(joined("height"), np.int32),
    }


@contextmanager
def opened(folder: Path, settings: dict[str, Any]) -> Iterator[CodeFolder]:
    """The folder for this writer alone, new or continued.

    InputError: it holds something else, or codes made with other settings, or another process is writing it.
    """
    settings = json.loads(json.dumps({"schema": SCHEMA, **settings}))
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place} is a file, not a folder. Name another output folder")
    with refused_writes_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with only_writer(folder, "another encoding", "Wait for it, or name another folder"):
            with refused_writes_named(folder):
                _claim(folder, settings)
            yield CodeFolder(folder, settings)
    finally:
        with suppress(OSError):  # only where nothing was written
            folder.rmdir()


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Makes the folder ours, or checks that it is, and removes what a killed run left half-written."""
    file = folder / SETTINGS_FILE
    sweep_temporaries(folder)
    if not file.is_file():
        if any(path.name != LOCK_FILE for path in folder.iterdir()):
            raise InputError(f"{folder} exists, is not empty and holds no {SETTINGS_FILE}. Name another output folder")
        write_text(file, json.dumps(settings, indent=1, sort_keys=True) + "\n")
    _refuse_other_settings(file, settings)
    shutil.rmtree(folder / BUILDING, ignore_errors=True)
    (folder / FINISHED).mkdir(exist_ok=True)
    sweep_temporaries(folder / FINISHED)
    if (folder / INDEX_FOLDER / INDEX_FILE).is_file():
        shutil.rmtree(folder / FINISHED)


def _refuse_other_settings(file: Path, settings: dict[str, Any]) -> None:
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as fault:
        raise InputError(f"{file} cannot be read ({fault}). Remove {file.parent} and encode again") from None
    for name in sorted({*before, *settings}):
        if before.get(name) != settings.get(name):
            raise InputError(
                f"{file.parent} was begun with another {name}: {_brief(before.get(name))} there, "
                f"{_brief(settings.get(name))} now. Set it back, or name another output folder"
            )


def _brief(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 160 else f"{text[:157]}..."

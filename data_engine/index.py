"""The side index of a shard folder: where each sample lies, to which split it belongs, and what the tars must be.

`index/index.json` (schema version, source, sha256, size and samples of each tar, splits, build arguments, sha256 of
each array) and one `.npy` a column, opened with memory mapping:

    shard int32 (N,) | offset, size int64 (N, F) | key_hash uint64 (N,) | split uint8 (N,) | width, height int32 (N,)

N samples, F fields (`fields` in index.json: the members in column order, e.g. image, json). Rows are sorted by key.
A field that a sample lacks has offset and size 0. What is known of samples beyond that: sample_facts.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tokenize
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_engine.sample_facts import FactColumns, SampleFacts
from data_engine.shards import BLOCK, ShardFile
from mmzoo.errors import InputError

INDEX_SCHEMA = 1
INDEX_FOLDER = "index"
INDEX_FILE = "index.json"
#: What numpy raises for the file of an array that is damaged.
UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError)
PROBE_BLOCKS, PROBE_BYTES = 16, 4096
KEY_BYTES = 100  # of a tar header, its first: the name of the member


class SamplePlace(NamedTuple):
    """Where a sample lies: shard number, byte offset and size in bytes of each of its members, in field order."""

    shard: int
    offsets: list[int]
    sizes: list[int]


def key_hash(key: str) -> int:
    """The number, below 2**64, under which the index lists a key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def key_in_header(header: bytes) -> str:
    """The key in a member's tar header: its name up to the first dot."""
    return header[:KEY_BYTES].partition(b"\0")[0].decode("ascii", "replace").partition(".")[0]


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def probe(path: Path) -> str:
    """sha256 (hex) of 16 blocks spread over a file: enough to see that it is another one, without reading it all."""
    digest = hashlib.sha256()
    last = max(0, path.stat().st_size - PROBE_BYTES)
    with path.open("rb") as file:
        for number in range(PROBE_BLOCKS):
            file.seek(last * number // (PROBE_BLOCKS - 1))
            digest.update(file.read(PROBE_BYTES))
    return digest.hexdigest()


def write_index(
    folder: Path, description: Mapping[str, Any], shards: Sequence[ShardFile], columns: Mapping[str, np.ndarray]
) -> str:
    """Writes `folder/index/` for finished shards, returns its identity. `description`: source, fields, splits, ..."""
    target = folder / f".{INDEX_FOLDER}.building"  # renamed at the end: an index is there whole or not at all
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    listed = {}
    for name, column in columns.items():
        np.save(target / f"{name}.npy", column, allow_pickle=False)
        listed[name] = {
            "dtype": column.dtype.str,
            "shape": list(column.shape),
            "sha256": file_sha256(target / f"{name}.npy"),
        }
    content = {
        "schema_version": INDEX_SCHEMA,
        **description,
        "samples": sum(shard.samples for shard in shards),
        "shards": [
            {
                "name": shard.name,
                "bytes": shard.bytes,
                "samples": shard.samples,
                "sha256": shard.sha256,
                "probe": probe(folder / shard.name),
            }
            for shard in shards
        ],
        "columns": listed,
    }
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    (target / INDEX_FILE).write_text(text, encoding="utf-8")
    target.rename(folder / INDEX_FOLDER)
    return hashlib.sha256(text.encode()).hexdigest()


def read_description(folder: Path) -> tuple[dict[str, Any], str]:
    """The parsed index.json of a shard folder, and its sha256. InputError: absent, unreadable, unknown schema."""
    path = folder / INDEX_FOLDER / INDEX_FILE
    if not folder.is_dir():
        raise InputError(f"no shard folder at {folder}. Make one with: mmzoo data build images SRC {folder}")
    try:
        data = path.read_bytes()
        content = json.loads(data)
        version = content["schema_version"]
    except FileNotFoundError:
        raise InputError(f"{folder} has no {INDEX_FOLDER}/{INDEX_FILE}. Make one with: mmzoo data build") from None
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise InputError(f"{path} is not an index ({fault}). Build the shards again: mmzoo data build") from None
    if version != INDEX_SCHEMA:
        raise InputError(f"{path} has schema version {version!r}, this mmzoo reads {INDEX_SCHEMA}. Build again")
    return content, hashlib.sha256(data).hexdigest()


class ShardIndex:
    """An opened index. Cheap to open and to hand to other processes: columns stay memory-mapped files."""

    max_open = 64  #: shards that a reader keeps open

    def __init__(self, folder: Path, content: dict[str, Any], identity: str) -> None:
        self.folder = folder
        self.content = content
        self.identity = identity
        self.source: str = content["source"]
        self.count: int = content["samples"]
        self.fields: list[str] = content["fields"]
        self.shards: list[str] = [shard["name"] for shard in content["shards"]]
        self.paths: list[Path] = [folder / name for name in self.shards]
        self.splits: list[str] = content["splits"]["names"]
        self._columns: dict[str, np.ndarray] = {}
        self._image_starts: np.ndarray | None = None

    @property
    def remedy(self) -> str:
        """What to do about broken samples."""
        return f"Check with: mmzoo data lint {self.folder}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling a memory map would copy the array: the other process maps the same files instead.
        return ShardIndex, (self.folder, self.content, self.identity)

    @classmethod
    def open(cls, folder: Path | str) -> ShardIndex:
        """Opens and checks quickly: every tar is there, has its size, and is not newer with other content.

        InputError: no index, another schema, a tar that is absent or is not the one that was indexed. The full check
        (sha256 of everything) is `mmzoo data lint`.
        """
        folder = Path(folder)
        content, identity = read_description(folder)
        try:
            index = cls(folder, content, identity)
            for shard in content["shards"]:
                reason = stale_reason(folder, shard)
                if reason:
                    raise InputError(
                        f"the index of {folder} does not fit its shards: {reason}. "
                        f"Mend with: mmzoo data repair {folder} -o NEW"
                    )
            for name in content["columns"]:
                index.column(name)
            numbers = index.column("shard")
            if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(index.shards):
                raise InputError(
                    f"{folder}/{INDEX_FOLDER}/shard.npy names tars that are not there. "
                    f"Mend with: mmzoo data repair {folder} -o NEW"
                )
        except (KeyError, TypeError) as fault:
            raise InputError(f"{folder}/{INDEX_FOLDER}/{INDEX_FILE} is incomplete ({fault}). Build again") from None
        return index

    def column(self, name: str) -> np.ndarray:
        """A column of the index, memory-mapped, one entry a row."""
        if name not in self._columns:
            path = self.folder / INDEX_FOLDER / f"{name}.npy"
            listed = self.content["columns"][name]
            try:
                # As a plain array over the map: numpy's own class for maps takes microseconds for each element.
                column = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
            except UNREADABLE as fault:
                raise InputError(f"{path} is not a readable column ({fault}). Build the shards again") from None
            if [column.dtype.str, list(column.shape)] != [listed["dtype"], listed["shape"]]:
                raise InputError(f"{path} is not the column that was indexed (dtype or shape). Build the shards again")
            self._columns[name] = column
        return self._columns[name]

    def split_rows(self, split: str) -> np.ndarray:
        """Rows of a split ("train", "val", or "all"), int64, ascending."""
        if split == "all":
            return np.arange(self.count, dtype=np.int64)
        if split not in self.splits:
            raise InputError(f"no split {split!r} in {self.folder}. Known: {', '.join([*self.splits, 'all'])}")
        return np.flatnonzero(self.column("split") == self.splits.index(split)).astype(np.int64)

    def place(self, row: int, field: str) -> tuple[Path, int, int]:
        """(tar, byte offset, size in bytes) of a member."""
        shard, offset, size = self.span(row, field)
        return self.paths[shard], offset, size

    def span(self, row: int, field: str) -> tuple[int, int, int]:
        """(shard number, byte offset, size in bytes) of a member."""
        column = self.fields.index(field)
        return (
            int(self.column("shard")[row]),
            int(self.column("offset")[row, column]),
            int(self.column("size")[row, column]),
        )

    def spans(self, rows: Sequence[int] | np.ndarray, field: str) -> tuple[list[int], list[int], list[int]]:
        """The same of many rows: shard numbers, offsets, sizes."""
        column = self.fields.index(field)
        rows = np.asarray(rows, np.int64)
        offsets, sizes = (self.column(name)[rows, column].tolist() for name in ("offset", "size"))
        return self.column("shard")[rows].tolist(), offsets, sizes

    def places(self, rows: Sequence[int] | np.ndarray) -> list[SamplePlace]:
        """The places of many rows at once."""
        columns = [self.column(name)[rows].tolist() for name in ("shard", "offset", "size")]
        return [SamplePlace(*values) for values in zip(*columns, strict=True)]

    def has_column(self, name: str) -> bool:
        """Whether the index lists a column; shards of before lack those that were added since."""
        return name in self.content["columns"]

    def facts(self, row: int) -> SampleFacts:
        """Characters of text, image sizes and bytes of a row, without reading the sample."""
        sizes = self.column("size")[row].tolist()
        held = {field: size for field, size in zip(self.fields, sizes, strict=True) if size}
        if not self.has_column("image_count"):
            return SampleFacts(0, [self._first_image(row)] if "image" in self.fields else [], held)
        if self._image_starts is None:
            self._image_starts = np.concatenate([[0], np.cumsum(self.column("image_count"), dtype=np.int64)])
        span = slice(*self._image_starts[row : row + 2].tolist())
        widths, heights = (self.column(name)[span].tolist() for name in ("image_width", "image_height"))
        return SampleFacts(int(self.column("text_chars")[row]), list(zip(widths, heights, strict=True)), held)

    def _first_image(self, row: int) -> tuple[int, int]:
        return int(self.column("width")[row]), int(self.column("height")[row])

    def fact_columns(self) -> FactColumns:
        """The same of all rows as arrays; see sample_facts.py."""
        rows = np.arange(self.count, dtype=np.int64)
        if self.has_column("image_count"):
            image_rows = np.repeat(rows, self.column("image_count"))
            sizes = (self.column("image_width"), self.column("image_height"))
            return FactColumns(self.column("text_chars"), image_rows, *sizes)
        shown = rows if "image" in self.fields else rows[:0]
        return FactColumns(np.zeros_like(rows), shown, self.column("width")[shown], self.column("height")[shown])

    def key(self, row: int) -> str:
        """Key of a row, read from the header that stands before its first member."""
        shard, offset, _ = self.span(row, self.fields[0])
        descriptor = self.open_shard(shard)
        try:
            return key_in_header(os.pread(descriptor, BLOCK, offset - BLOCK))
        finally:
            os.close(descriptor)

    def open_shard(self, shard: int) -> int:
        """A descriptor of a shard, for reading; the taker closes it."""
        return os.open(self.paths[shard], os.O_RDONLY)

    def find(self, key: str) -> int | None:
        """Row of a key, or None."""
        for row in np.flatnonzero(self.column("key_hash") == np.uint64(key_hash(key))):
            if self.key(int(row)) == key:
                return int(row)
        return None


def stale_reason(folder: Path, shard: Mapping[str, Any]) -> str | None:
    """Why the index entry of a shard no longer describes the tar beside it, or None.

    A newer date alone proves nothing (copying changes it): then a few blocks of the tar are compared.
    """
    path = folder / shard["name"]
    if not path.is_file():
        return f"{path.name} is missing"
    now = path.stat()
    if now.st_size != shard["bytes"]:
        return f"{path.name} has {now.st_size} bytes, the index says {shard['bytes']}"
    newer = now.st_mtime_ns > (folder / INDEX_FOLDER / INDEX_FILE).stat().st_mtime_ns
    if newer and probe(path) != shard["probe"]:
        return f"{path.name} was written after its index, with other content (the index is older than the tar)"
    return None

"""Pictures by row number, from a folder of images or from the shards of one: what bulk work on images reads.

Both give the same keys, in the same order, with the same pixels and json member. Reading is safe from several threads.
A picture that is broken raises BrokenSampleError; a file of a folder that is no image at all is None.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data_engine.broken_samples import BrokenSampleError, Fault
from data_engine.decode import DecodeRules, decode_image
from data_engine.index import INDEX_FILE, INDEX_FOLDER, ShardIndex
from data_engine.reader import ShardReader
from data_engine.shards import sample_key
from data_engine.sources.image_folder import Rejected, examine_pixels, list_files
from data_engine.splits import SPLITS, group_of, join_copies, split_by_hash
from mmzoo.errors import InputError


@dataclass(frozen=True, slots=True)
class Picture:
    """pixels uint8 (H, W, 3); members: what a sample holds beside the image, by field, bytes as stored.

    `path` and `sha256` (hex, of the image's file) are those of the json member; `rules` counts the image rules of
    decode.py that applied.
    """

    key: str
    pixels: np.ndarray
    members: dict[str, bytes]
    path: str
    sha256: str
    rules: Counter[str] = field(default_factory=Counter)


class Pictures(Protocol):
    """`count` rows in the order of their keys. `identity` is another when the pictures are others."""

    kind: str  #: "folder" or "shards"
    name: str
    identity: str
    count: int
    other_fields: list[str]  #: the fields of a sample beside the image
    reading: dict[str, Any]  #: how pixels and splits are made, as JSON values

    def read(self, row: int) -> Picture | None:
        """The picture of a row; BrokenSampleError when it is broken."""
        ...

    def splits(self, rows: list[int], paths: list[str], hashes: list[str]) -> tuple[list[str], list[str]]:
        """(names of the splits, the split of each of these pictures). All sound pictures are given, in order."""
        ...


class FolderPictures:
    """A folder of images, at any depth; the picture of a row is decoded from its file. `leave_out`: see list_files."""

    kind = "folder"
    other_fields = ["json"]  # noqa: RUF012 - the same for all

    def __init__(self, folder: Path, rules: DecodeRules, val_fraction: float, leave_out: Path | None = None) -> None:
        self.folder, self.rules, self.val_fraction = folder, rules, val_fraction
        self.name = folder.resolve().name or "images"
        self.reading = {"background": rules.background, "val_fraction": val_fraction}
        self._files = sorted((sample_key(path), path) for path in list_files(folder, leave_out))
        for (key, path), (other, twin) in pairwise(self._files):
            if key == other:
                raise InputError(f"{path!r} and {twin!r} get the same key {key}. Rename one")
        self.count = len(self._files)
        self.identity = self._listing_hash()

    def _listing_hash(self) -> str:
        """sha256 over names, sizes and dates: a file that was changed makes it another folder."""
        digest = hashlib.sha256()
        for _, path in self._files:
            try:
                status = (self.folder / path).stat()
                stamp: object = (path, status.st_size, status.st_mtime_ns)
            except OSError as fault:  # a dangling link: no picture, but part of the folder
                stamp = (path, fault.errno)
            digest.update(repr(stamp).encode("utf-8", "backslashreplace") + b"\n")
        return digest.hexdigest()

    def read(self, row: int) -> Picture | None:
        """See Pictures."""
        key, path = self._files[row]
        rules: Counter[str] = Counter()
        found = examine_pixels(self.folder, path, self.rules, rules)
        if found is None:
            return None
        if isinstance(found, Rejected):
            fault = Fault(self.name, found.path, key, 0, found.reason, in_folder=True)
            raise BrokenSampleError(fault, "Replace the file, or take it out")
        image, pixels = found
        return Picture(key, pixels, {"json": image.json_member(self.name)}, image.path, image.sha256, rules)

    def splits(self, rows: list[int], paths: list[str], hashes: list[str]) -> tuple[list[str], list[str]]:
        """As `mmzoo data build images` splits them; a single picture, and its copies, go to "train"."""
        del rows
        groups = join_copies([group_of(path, None) for path in paths], hashes)
        return list(SPLITS), split_by_hash(groups, self.val_fraction if len(set(groups)) > 1 else 0)


class ShardPictures:
    """The samples of an image shard folder; splits are those of its index."""

    kind = "shards"

    def __init__(self, folder: Path, rules: DecodeRules) -> None:
        self.index = ShardIndex.open(folder)
        if "image" not in self.index.fields or "json" not in self.index.fields:
            raise InputError(f"{folder} holds {', '.join(self.index.fields)}, not images. Name shards of images")
        self._readers = threading.local()  # a reader's open files are one thread's own
        self.rules = rules
        self.reading = {"background": rules.background}
        self.name, self.identity, self.count = self.index.source, self.index.identity, self.index.count
        self.other_fields = [name for name in self.index.fields if name != "image"]

    @property
    def _reader(self) -> ShardReader:
        if not hasattr(self._readers, "reader"):
            self._readers.reader = ShardReader(self.index)
        return self._readers.reader

    def read(self, row: int) -> Picture:
        """See Pictures."""
        reader = self._reader
        key, members = reader.members(row)
        rules: Counter[str] = Counter()
        try:
            pixels = decode_image(members.pop("image"), self.rules, rules)
        except InputError as mistake:
            raise reader.broken(row, "image", str(mistake)) from None
        meta = reader.parsed(row, members["json"])
        return Picture(key, pixels, members, str(meta.get("path", key)), str(meta.get("sha256", "")), rules)

    def splits(self, rows: list[int], paths: list[str], hashes: list[str]) -> tuple[list[str], list[str]]:
        """See Pictures."""
        del paths, hashes
        numbers = self.index.column("split")[np.array(rows, np.int64)]
        return self.index.splits, [self.index.splits[number] for number in numbers]


def open_pictures(
    source: Path, rules: DecodeRules, val_fraction: float, leave_out: Path | None = None
) -> FolderPictures | ShardPictures:
    """Shards where `source` has an index, else a folder of images. InputError: neither, or nothing in it."""
    if (source / INDEX_FOLDER / INDEX_FILE).exists():
        return ShardPictures(source, rules)
    if any(source.glob("shard-*.tar")):
        raise InputError(f"{source} holds shards without an index: work that was not finished. Redo or finish it")
    pictures = FolderPictures(source, rules, val_fraction, leave_out)
    if not pictures.count:
        raise InputError(f"{source} is empty. Give the folder that holds the images")
    return pictures

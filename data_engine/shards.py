"""Writes plain webdataset tars, `shard-000000.tar`, ...: for each sample `<key>.<ext>` members that lie together.

Keys are `[a-z0-9_-]+`: readers of webdataset cut a name at its first dot, so a dotted key would merge samples. They
come sorted and once. The bytes depend on the samples only (USTAR, time 0, owner 0), so equal input makes equal shards.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

KEY_PATTERN = re.compile(r"[a-z0-9_-]+")
MAX_KEY = 80  # with its extension it must fit the 100 bytes of a USTAR name
BLOCK = 512
END_OF_TAR = bytes(2 * BLOCK)
# Collected before it is handed over: a file that is written by the sample lies in the page cache in single pages, and
# reading it back from there takes three times as long.
WRITE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A finished shard: file name, size in bytes, sha256 (hex), number of samples."""

    name: str
    bytes: int
    sha256: str
    samples: int


@dataclass(frozen=True, slots=True)
class MemberPlace:
    """Where the bytes of a member lie: shard number, byte offset in the tar, size in bytes."""

    shard: int
    offset: int
    size: int


def shard_name(number: int) -> str:
    """File name of the shard with this number."""
    return f"shard-{number:06d}.tar"


def sample_key(path: str) -> str:
    """A key for a relative path: readable, without dots, and told apart by a hash from all other paths' keys."""
    stem = path.rpartition(".")[0] or path
    readable = re.sub(r"[^a-z0-9_-]+", "_", stem.lower()).strip("_")[: MAX_KEY - 9]
    return f"{readable or 'sample'}-{hashlib.sha256(path.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def member_header(name: str, size: int) -> bytes:
    """The tar header of a member of `size` bytes: BLOCK bytes that depend on nothing else."""
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    return header.tobuf(tarfile.USTAR_FORMAT)


class ShardWriter:
    """Writes samples into `folder`, beginning a new shard when `shard_bytes` would be passed. Use as a context."""

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self.folder = folder
        self.shard_bytes = shard_bytes
        self.shards: list[ShardFile] = []
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._offset = self._samples = 0
        self._last_key = ""

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, key: str, members: Mapping[str, bytes]) -> list[MemberPlace]:
        """Appends one sample, `members` = {extension: bytes}; returns where each member's bytes lie.

        ValueError (the caller's fault, not the user's): a key malformed, repeated or out of order; an empty member.
        """
        if not KEY_PATTERN.fullmatch(key) or len(key) > MAX_KEY:
            raise ValueError(f"key {key!r}: 1 to {MAX_KEY} of a-z 0-9 _ - are allowed, dots are not")
        if key <= self._last_key:
            raise ValueError(f"key {key!r} after {self._last_key!r}: keys come sorted, each once")
        if not all(members.values()):
            raise ValueError(f"key {key!r}: a member is empty")
        size = sum(BLOCK + padded(len(data)) for data in members.values())
        if self._file is not None and self._offset + size + len(END_OF_TAR) > self.shard_bytes:
            self.close()
        if self._file is None:
            self._file = open_for_writing(self.folder / shard_name(len(self.shards)))
        self._last_key = key
        self._samples += 1
        return [self._add_member(f"{key}.{extension}", data) for extension, data in members.items()]

    def close(self) -> None:
        """Ends the open shard; more samples would begin another one."""
        if self._file is None:
            return
        self._write(END_OF_TAR)
        self._file.close()
        name = shard_name(len(self.shards))
        self.shards.append(ShardFile(name, self._offset, self._hash.hexdigest(), self._samples))
        self._file, self._hash = None, hashlib.sha256()
        self._offset = self._samples = 0

    def _add_member(self, name: str, data: bytes) -> MemberPlace:
        self._write(member_header(name, len(data)))
        place = MemberPlace(len(self.shards), self._offset, len(data))
        self._write(data)
        self._write(bytes(padded(len(data)) - len(data)))
        return place

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)
        self._hash.update(data)
        self._offset += len(data)


def open_for_writing(path: Path) -> BinaryIO:
    """A new file of many samples; what is written reaches it in large pieces."""
    return path.open("wb", buffering=WRITE_BYTES)


def padded(size: int) -> int:
    """`size` bytes, filled up to whole blocks."""
    return -(-size // BLOCK) * BLOCK

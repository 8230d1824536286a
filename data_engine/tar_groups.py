"""The samples of a tar as webdataset sees them, neighbours with one key; nothing in the tar is trusted."""

from __future__ import annotations

import tarfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data_engine.code_fields import CODES_EXTENSION
from data_engine.decode import EXTENSIONS
from data_engine.lint_records import RECORD_EXTENSION
from data_engine.shards import BLOCK, KEY_PATTERN, MAX_KEY

IMAGE_EXTENSIONS = {*EXTENSIONS.values(), "jpeg", "tiff"}
PICKLE_EXTENSIONS = {"pkl", "pickle", "pyd", "pth", "pt", "ckpt", "bin", "npy", "npz", "joblib", "dill"}
SCAN_BLOCKS = 2048  # of one read in search of a header
MAGIC = slice(257, 262)


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault. `key` and `offset` (bytes into the shard) are None where the fault is not in a member."""

    shard: str
    key: str | None
    offset: int | None
    what: str

    def line(self) -> str:
        """The finding on one line: shard, key, offset, what."""
        where = "-" if self.offset is None else str(self.offset)
        return f"{self.shard}: key {self.key or '-'}, offset {where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar. `extension`: lower case; `offset` of its bytes; `faults`: why no sample should hold it."""

    name: str
    extension: str
    offset: int
    data: bytes
    faults: tuple[str, ...] = ()


@dataclass(slots=True)
class Group:
    """Members that lie together under one key; `offset` is that of the first one's bytes."""

    key: str
    offset: int
    members: list[Member] = field(default_factory=list)


def read_groups(tar: Path, found: list[Finding], resync: bool = False, listed: int = 0) -> Iterator[Group]:
    """The groups of a tar. What is wrong with the tar itself goes to `found`, and so do members that are no files.

    `resync`: behind a damage go on at the next block that is a sound header. Behind an end marker nothing counts,
    unless it stands before `listed`, the last offset where an index lists a sample: then it is a damage, too.
    """
    group: Group | None = None
    for info, data in _members(tar, found, resync, listed):
        folder, _, base = info.name.rpartition("/")
        stem, _, extension = base.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        faults = tuple(_member_faults(info, extension))
        if not info.isreg():
            faults = (*key_faults(info.name, key), *faults)
            found += [Finding(tar.name, key, info.offset_data, what) for what in faults]
            continue
        if group is None or group.key != key:
            if group is not None:
                yield group
            group = Group(key, info.offset_data)
        group.members.append(Member(info.name, extension.lower(), info.offset_data, data, faults))
    if group is not None:
        yield group


def _members(tar: Path, found: list[Finding], resync: bool, listed: int) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    start: int | None = 0
    while start is not None:
        end, damage = yield from _sound_members(tar, start)
        if damage is None and resync and end < listed:
            damage = "damaged tar: an end marker before samples that the index lists"
        if damage is None:
            return
        then = "; read on at the next header" if resync else ", what follows is lost"
        found.append(Finding(tar.name, None, end, damage + (then if damage.startswith("damaged") else "")))
        start = _next_header(tar, end + BLOCK) if resync else None


def _sound_members(tar: Path, start: int) -> Generator[tuple[tarfile.TarInfo, bytes], None, tuple[int, str | None]]:
    """Every member from `start` on with its bytes, up to the end marker or a damage; returns where, and which."""
    end = start
    try:
        with tar.open("rb") as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (info := archive.next()) is not None:
                    end = info.offset
                    stream = archive.extractfile(info) if info.isreg() else None
                    yield info, stream.read() if stream else b""
                    end = info.offset_data + -(-info.size // BLOCK) * BLOCK * info.isreg()
    except (tarfile.TarError, OSError, EOFError, ValueError) as fault:
        return end, f"truncated or damaged tar: {fault}"
    with tar.open("rb") as file:
        file.seek(end)
        tail = file.read(2 * BLOCK)
    if len(tail) < 2 * BLOCK:
        return end, "truncated tar: the end marker is missing"
    return end, "damaged tar: no member header here" if any(tail) else None


def _next_header(tar: Path, offset: int) -> int | None:
    """Offset of the first block from `offset` on that is a sound USTAR header, or None."""
    try:
        with tar.open("rb") as file:
            file.seek(offset)
            while blocks := file.read(SCAN_BLOCKS * BLOCK):
                for start in range(0, len(blocks), BLOCK):
                    block = blocks[start : start + BLOCK]
                    if block[MAGIC] == b"ustar" and _is_header(block):
                        return offset + start
                offset += len(blocks)
    except OSError:  # named already, where the members were read
        return None
    return None


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def key_faults(name: str, key: str) -> Iterator[str]:
    """What is wrong with the key of a member's name."""
    if ".." in PurePosixPath(name).parts or name.startswith("/"):
        yield f"path leaves the folder: {name!r}"
    elif not KEY_PATTERN.fullmatch(key):
        yield f"key of {name!r} has other characters than a-z 0-9 _ -"
    elif len(key) > MAX_KEY:
        yield f"key of {name!r} has more than {MAX_KEY} characters"


def _member_faults(info: tarfile.TarInfo, extension: str) -> Iterator[str]:
    if not info.isreg():
        kind = "a symlink" if info.issym() else "a hard link" if info.islnk() else "no regular file"
        yield f"member {info.name!r} is {kind}"
    if "." in extension and extension != CODES_EXTENSION and not RECORD_EXTENSION.fullmatch(extension):
        yield f"dotted stem in {info.name!r}: readers cut the key at the first dot"
    last = extension.rpartition(".")[2].lower()
    if extension == CODES_EXTENSION:
        return
    if last in PICKLE_EXTENSIONS:
        yield f"pickle member {info.name!r}: readers may execute it"
    elif last not in IMAGE_EXTENSIONS and last != "json" and info.isreg():
        yield f"member {info.name!r} is of no known type"

"""A folder of fetched shards, shared by all processes of a machine and bounded in bytes.

A shard is fetched by one process while the others that want it wait (a lock file a shard), under a name of its own that
says its full size, and gets its place by a rename. Whoever reads a shard holds a shared lock on the file itself, so the
least recently used shard *that nobody reads* can be told and goes first. Locks end with their process, even a killed
one; what that leaves behind half fetched is removed when room is made.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_engine.flush import flush
from mmzoo.errors import InputError

PARTIAL = re.compile(r"\.(.+)\.(\d+)\.partial")
CACHE_LOCK = ".cache.lock"


@contextmanager
def locked(file: Path, wait: bool = True) -> Iterator[bool]:
    """Holds an exclusive lock on a lock file; yields False, without it, when another has it and `wait` is off."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _lock(descriptor, fcntl.LOCK_EX, wait)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class ShardCache:
    """At most `limit` bytes of shards, complete and incoming ones, in the subfolders of `folder`."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def open(self, path: Path, size: int, make: Callable[[Path], None]) -> int:
        """A descriptor of the shard at `path`; as long as it is open the shard stays.

        `make(partial)` writes the `size` bytes where they are not there yet. InputError: there is no room.
        """
        while True:
            descriptor = _open_whole(path, size)
            if descriptor is not None:
                return descriptor
            with locked(path.with_name(f".{path.name}.lock")):
                descriptor = _open_whole(path, size)  # another process fetched it while this one waited
                if descriptor is None:
                    self._fill(path, size, make)
                    descriptor = _open_whole(path, size)
            if descriptor is not None:
                return descriptor

    def _fill(self, path: Path, size: int, make: Callable[[Path], None]) -> None:
        partial = path.with_name(f".{path.name}.{size}.partial")
        partial.unlink(missing_ok=True)
        path.unlink(missing_ok=True)  # one of another size: cut from outside
        with locked(self.folder / CACHE_LOCK):
            self._make_room(size)
            partial.touch()  # its name reserves the bytes
        try:
            make(partial)
            flush(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        flush(path.parent)

    def _make_room(self, size: int) -> None:
        shards = sorted(self.folder.glob("*/*.tar"), key=lambda path: path.stat().st_mtime_ns)
        used = sum(path.stat().st_size for path in shards) + self._incoming()
        for path in shards:
            if used + size <= self.limit:
                return
            used -= _removed(path)
        if used + size > self.limit:
            raise InputError(
                f"no room in the shard cache {self.folder}: {used / 1e9:.3g} GB are in use, a shard needs "
                f"{size / 1e9:.3g} GB, the limit is {self.limit / 1e9:.3g} GB. Raise data.init_args.cache_gb"
            )

    def _incoming(self) -> int:
        """Bytes that fetches under way will need; what dead ones left is removed."""
        total = 0
        for partial in self.folder.glob("*/.*.partial"):
            name = PARTIAL.fullmatch(partial.name)
            if name is None:
                continue
            with locked(partial.with_name(f".{name[1]}.lock"), wait=False) as abandoned:
                if abandoned:
                    partial.unlink(missing_ok=True)
                else:
                    total += int(name[2])
        return total


def _open_whole(path: Path, size: int) -> int | None:
    """A descriptor with a shared lock, of a shard that is there and has its size."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    _lock(descriptor, fcntl.LOCK_SH, wait=True)
    if os.fstat(descriptor).st_size == size and _is_at(path, descriptor):
        os.utime(path)  # the order of use, for _make_room
        return descriptor
    os.close(descriptor)
    return None


def _is_at(path: Path, descriptor: int) -> bool:
    """False when the file was removed between its opening and its locking."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _removed(path: Path) -> int:
    """Removes a shard that nobody reads; its bytes, or 0."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if not _lock(descriptor, fcntl.LOCK_EX, wait=False):
            return 0
        path.unlink()
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)

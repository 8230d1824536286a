"""Files that are there whole or not at all: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_engine.flush import flush
from mmzoo.errors import InputError

#: What `temporary_sibling` makes: group 1 is the name that the file or folder was to get.
TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}")


class NoSpaceError(InputError):
    """The disk or the user's quota is full: nothing was damaged, and it may work later."""


def temporary_sibling(path: Path) -> Path:
    """A hidden name in the same folder, so that the rename that follows stays on one file system."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


def follow_umask(path: Path) -> None:
    """Gives a file the permissions that any new file gets in its folder: safetensors writes for the owner only."""
    probe = temporary_sibling(path)  # asking the umask means setting it, for every thread of the process
    probe.touch()
    try:
        path.chmod(stat.S_IMODE(probe.stat().st_mode))
    finally:
        probe.unlink()


def sweep_temporaries(folder: Path) -> None:
    """Removes the files that writes of killed processes left in a folder; its subfolders are not looked into."""
    for path in folder.glob(".*"):
        if TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name to write to; it takes the place of `path` in one step when the block ends well."""
    temporary = temporary_sibling(path)
    try:
        yield temporary
        follow_umask(temporary)
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replaces `path` by `text` in one step; a reader sees the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def replace_link(link: Path, target: str) -> None:
    """Points the symbolic link at `target` (a name in the same folder) in one step."""
    temporary = temporary_sibling(link)
    try:
        temporary.symlink_to(target)
        temporary.replace(link)
    finally:
        temporary.unlink(missing_ok=True)
    flush(link.parent)


@contextmanager
def refused_writes_named(target: Path) -> Iterator[None]:
    """Turns a write that the system refuses (no permission, a file in the way) into an InputError that names `target`.

    NoSpaceError, one of them, when it is for want of space.
    """
    try:
        yield
    except Exception as fault:
        reason = _why_not_written(fault)
        if reason is None:
            raise
        kind = NoSpaceError if reason in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)) else InputError
        raise kind(f"{target} cannot be written ({reason}). Free space, or choose a writable folder.") from fault


def _why_not_written(fault: Exception) -> str | None:
    """The system's reason; None for a fault that is not about writing."""
    if isinstance(fault, RuntimeError) and isinstance(fault.__context__, OSError):
        fault = fault.__context__  # torch.save: its archive writer notices only that bytes are missing
    if isinstance(fault, OSError):
        return fault.strerror or str(fault)
    if type(fault).__name__ == "SafetensorError" and "os error" in str(fault):  # its own type around the system's text
        return str(fault).rpartition("I/O error: ")[2].partition(" (os error")[0]
    return None


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

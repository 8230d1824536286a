"""One writer a folder: a lock on a file in it, which the system releases when the writer dies, however it dies.

The file says who holds it, for the message that a second writer gets. It is removed at the end; what a killed writer
leaves of it locks nobody out.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from mmzoo.durable_files import refused_writes_named
from mmzoo.errors import InputError

LOCK_FILE = ".lock"
#: What file systems answer that have no locks.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
#: Descriptors of the locks that this process holds.
_held: set[int] = set()


class InUseError(InputError):
    """Another process writes to the folder now."""


def _leave_to_the_parent() -> None:
    """A lock lasts as long as any copy of its descriptor: loader workers would hold it after the death of a trainer."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_leave_to_the_parent)


@contextmanager
def only_writer(folder: Path, work: str, advice: str) -> Iterator[None]:
    """Keeps other writers out of an existing folder while the block runs; processes forked in it do not hold the lock.

    `work`: what the folder is in use for, `advice`: what to do when it is taken; both for the message.
    InUseError: another process holds it (process number, machine). InputError: the folder cannot be written.
    """
    file = folder / LOCK_FILE
    with refused_writes_named(folder):
        descriptor = _locked(file)
    if descriptor is None:
        raise InUseError(f"{folder} is in use for {work} by {_holder(file)}. {advice}")
    try:
        _held.add(descriptor)
        _sign(descriptor)
        yield
    finally:
        if descriptor in _held:
            with suppress(OSError):  # while it is still locked: see _locked
                file.unlink()
            _held.discard(descriptor)
            os.close(descriptor)


def _locked(file: Path) -> int | None:
    """A descriptor of the locked file, or None when another process has it."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as fault:
            if fault.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            sys.stderr.write(
                f"note: no locks on this file system: nothing keeps a second writer out of {file.parent}\n"
            )
        if _is_at(file, descriptor):
            return descriptor
        os.close(descriptor)  # its holder removed it between our opening and our locking


def _is_at(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    holder = {
        "process": os.getpid(),
        "machine": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)


def _holder(file: Path) -> str:
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
        return f"process {holder['process']} on {holder['machine']} (since {holder['since']})"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"  # it has not signed yet, or could not

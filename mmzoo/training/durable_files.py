"""Files that are there whole or not at all: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path


def temporary_sibling(path: Path) -> Path:
    """A hidden name in the same folder, so that the rename that follows stays on one file system."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


def flush(path: Path) -> None:
    """Forces a file or a folder's list of names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replaces `path` by `text` in one step; a reader sees the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


def replace_link(link: Path, target: str) -> None:
    """Points the symbolic link at `target` (a name in the same folder) in one step."""
    temporary = temporary_sibling(link)
    try:
        temporary.symlink_to(target)
        temporary.replace(link)
    finally:
        temporary.unlink(missing_ok=True)
    flush(link.parent)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

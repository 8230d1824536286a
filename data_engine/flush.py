"""What is written reaches the disk before anything is built on it."""

from __future__ import annotations

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Forces a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

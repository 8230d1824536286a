"""A folder that appears whole or not at all: built in a hidden sibling, then renamed.

What stands at the place already is replaced only when asked, and only when every file in it is one that we write.
What a killed build leaves in its sibling is swept by the next build of that folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_engine.index import INDEX_FILE, INDEX_FOLDER
from mmzoo.errors import InputError

REJECTED_FILE, REPAIRS_FILE = "rejected.jsonl", "repairs.jsonl"
BUILD_FILE, CARD_FILE, CARD_PAGE = "build.json", "data_card.json", "DATA_CARD.md"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OUR_FILES = re.compile(
    rf"shard-\d{{6}}\.tar(\.idx)?|{REJECTED_FILE}|{REPAIRS_FILE}|{INDEX_FOLDER}|{INDEX_FOLDER}/({INDEX_FILE}|\w+\.npy)"
    rf"|{BUILD_FILE}|{CARD_FILE}|{CARD_PAGE}|\.nv-meta|\.nv-meta/(\.info\.json|dataset\.yaml|split\.yaml|index\.(sqlite|uuid))"
)


def check_output(folder: Path, overwrite: bool) -> None:
    """InputError when a shard set may not be put at `folder`: something else, or something at all, is there already."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place} is a file, not a folder. Name another output folder")
    if not folder.exists():
        return
    if not any(folder.iterdir()):
        return
    if not overwrite:
        raise InputError(f"{folder} exists and is not empty. Give --overwrite, or name another folder")
    if not (folder / INDEX_FOLDER / INDEX_FILE).is_file():
        raise InputError(f"{folder} is not a shard folder of ours, so --overwrite leaves it alone. Name another folder")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not OUR_FILES.fullmatch(name):
            raise InputError(f"{folder} also holds {name}, so --overwrite leaves it alone. Move that, or name another")


@contextmanager
def replaced_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Gives an empty folder to build in; on success it becomes `folder`, on any error nothing of it remains.

    InputError: see check_output; or the disk is full.
    """
    folder = folder.resolve()
    existing = next(parent for parent in folder.parents if parent.is_dir())
    _sweep(existing, folder)
    check_output(folder, overwrite)
    building = existing / f".{folder.name}.building-{os.getpid()}"
    try:
        building.mkdir()
    except OSError as fault:
        raise InputError(f"cannot write to {existing}: {fault.strerror}. Name another output folder") from None
    lock = os.open(building, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held as long as this process lives, see _sweep
        yield building
        put_in_place(building, folder, overwrite)
    except BaseException as fault:
        shutil.rmtree(building, ignore_errors=True)
        if isinstance(fault, OSError) and fault.errno in NO_SPACE:
            raise InputError(f"cannot write {folder}: {fault.strerror}. Free space and run again") from None
        raise
    finally:
        os.close(lock)


def _sweep(parent: Path, folder: Path) -> None:
    """Removes what killed builds of `folder` left; earlier shards that one had just moved aside come back."""
    for building in sorted(parent.glob(f".{folder.name}.building-*")):
        if not re.fullmatch(r"\.building-\d+(\.old)?", building.name.removeprefix(f".{folder.name}")):
            continue
        if building.suffix == ".old":
            if folder.exists():
                shutil.rmtree(building, ignore_errors=True)
            else:
                building.rename(folder)
        elif not _is_locked(building):
            shutil.rmtree(building, ignore_errors=True)


def _is_locked(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def put_in_place(building: Path, folder: Path, overwrite: bool) -> None:
    """Makes a finished folder `folder`, in place of what may be there. InputError: see check_output."""
    check_output(folder, overwrite)  # again: building may have taken hours
    old = building.with_name(f"{building.name}.old")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            folder.rename(old)
        try:
            building.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    except OSError as fault:
        raise InputError(f"cannot write {folder}: {fault.strerror}. Name another output folder") from None
    shutil.rmtree(old, ignore_errors=True)

"""A folder of images, at any depth: lists its files, and judges each one by its content.

A file is an image when its first bytes say so. Every image is decoded once, whole, so that no broken one gets into a
shard. Files that are no images are skipped; broken images, and other things under an image's suffix, are rejected.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data_engine.decode import DecodeRules, ImageHeader, decode_image, looks_like_image, read_header
from data_engine.records import SAMPLE_SCHEMA
from mmzoo.errors import InputError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
HEAD = 16  # bytes that say what a file is


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A sound image: path relative to the folder, its stored bytes and their sha256 (hex), size in px as decoded."""

    path: str
    data: bytes
    sha256: str
    header: ImageHeader
    width: int
    height: int

    def json_member(self, source: str) -> bytes:
        """The json member of a sample (see records.py) of the data set `source`."""
        meta = {
            "schema_version": SAMPLE_SCHEMA,
            "source": source,
            "path": self.path,
            "sha256": self.sha256,
            "width": self.width,
            "height": self.height,
            **asdict(self.header),
        }
        return json.dumps(meta, ensure_ascii=False, sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that should be an image and is not a sound one: relative path, one line why."""

    path: str
    reason: str


def list_files(folder: Path, leave_out: Path | None = None) -> list[str]:
    """Relative POSIX paths of all files under a folder, sorted; linked folders are named, not entered.

    `leave_out`: a folder inside that is not looked at (where the shards go). InputError: not a readable folder.
    """
    if not folder.exists():
        raise InputError(f"no folder at {folder}. Give the folder that holds the images")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file. Give the folder that holds the images")
    return sorted(_walk(folder, leave_out.resolve() if leave_out else None))


def _walk(folder: Path, leave_out: Path | None) -> Iterator[str]:
    def refuse(fault: OSError) -> None:
        raise InputError(f"cannot read {fault.filename}: {fault.strerror}") from None

    for parent, folders, files in os.walk(folder, onerror=refuse):
        here = Path(parent)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [name for name in folders if (here / name).resolve() != leave_out and name not in links]
        yield from ((here / name).relative_to(folder).as_posix() for name in files + links)


def may_be_image(file: Path) -> bool:
    """Whether a file is to be judged as an image: by its first bytes, or else by its suffix. A folder is none."""
    if not file.is_file():
        return False
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with file.open("rb") as stream:
            return looks_like_image(stream.read(HEAD))
    except OSError:
        return False


def examine(folder: Path, path: str, counts: Counter[str]) -> ImageFile | Rejected | None:
    """The image at a relative path, or why it is rejected; None for what is no image. `counts`: see decode.py."""
    found = examine_pixels(folder, path, DecodeRules(), counts)
    return found[0] if isinstance(found, tuple) else found


def examine_pixels(
    folder: Path, path: str, rules: DecodeRules, counts: Counter[str]
) -> tuple[ImageFile, np.ndarray] | Rejected | None:
    """The same, with the pixels uint8 (H, W, 3) that were decoded to find out."""
    file = folder / path
    if not file.is_file():
        return None
    try:
        with file.open("rb") as stream:
            start = stream.read(HEAD)
            if looks_like_image(start):
                data = start + stream.read()
            elif file.suffix.lower() in IMAGE_SUFFIXES:
                return Rejected(path, "empty file" if not start else "not an image by its content")
            else:
                return None
        path.encode()
        header = read_header(data)
        pixels = decode_image(data, rules, counts)
    except OSError as fault:
        return Rejected(path, f"cannot be read: {fault.strerror}")
    except UnicodeEncodeError:
        return Rejected(path.encode("utf-8", "backslashreplace").decode(), "the file name is not UTF-8")
    except InputError as mistake:
        return Rejected(path, str(mistake))
    height, width, _ = pixels.shape
    return ImageFile(path, data, hashlib.sha256(data).hexdigest(), header, width, height), pixels

"""What the checks need to know of each sample, read once: hashes and sizes of its pictures, its text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_engine.broken_samples import BrokenSampleError
from data_engine.decode import decode_image
from data_engine.index import ShardIndex
from data_engine.progress import tracked
from data_engine.quality.perceptual import perceptual_hash
from data_engine.quality.texts import sample_text
from data_engine.reader import ShardReader
from mmzoo.errors import InputError


@dataclass(frozen=True, slots=True)
class Pictured:
    """One picture: sha256 of its file and of its pixels, its look (64 bits), width and height in px."""

    file_hash: str
    pixel_hash: str
    look: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Surveyed:
    """One sample. `pictures` in their order, counted from 0 as in `image, image1, ...`; `rasters`: sha256 of each file;
    `broken`: why it cannot be read, and `broken_picture` which picture cannot.
    """

    key: str
    path: str
    pictures: tuple[Pictured, ...] = ()
    rasters: tuple[str, ...] = ()
    text: str = ""
    broken: str | None = None
    broken_picture: int | None = None

    @property
    def is_text(self) -> bool:
        """Whether it shows nothing."""
        return not self.pictures and not self.rasters


class Looks(NamedTuple):
    """Of all P pictures of some samples: row of the sample int64, number in it int64, look uint64; (P,) each."""

    rows: np.ndarray
    numbers: np.ndarray
    hashes: np.ndarray


def survey(index: ShardIndex) -> list[Surveyed]:
    """All samples of a shard folder, in the order of its rows."""
    reader = ShardReader(index)
    return [_surveyed(reader, row) for row in tracked(range(index.count), "reading samples", index.count)]


def looks(samples: Sequence[Surveyed]) -> Looks:
    """The looks of all pictures, in the order of the rows."""
    found = [
        (row, number, picture.look)
        for row, sample in enumerate(samples)
        for number, picture in enumerate(sample.pictures)
    ]
    rows, numbers, hashes = zip(*found, strict=True) if found else ((), (), ())
    return Looks(np.array(rows, np.int64), np.array(numbers, np.int64), np.array(hashes, np.uint64))


def _surveyed(reader: ShardReader, row: int) -> Surveyed:
    key = reader.key(row)
    try:
        _, members = reader.members(row)
        meta = json.loads(members["json"])
        path, text = str(meta.get("path") or meta.get("origin") or key), sample_text(meta)
    except (BrokenSampleError, ValueError, LookupError, AttributeError) as fault:
        return Surveyed(key, key, broken=f"json cannot be read: {fault}")
    rasters = tuple(hashlib.sha256(data).hexdigest() for data in _files(members, "raster"))
    pictures: list[Pictured] = []
    for number, data in enumerate(_files(members, "image")):
        try:
            pictures.append(_pictured(data))
        except InputError as mistake:
            return Surveyed(key, path, text=text, broken=str(mistake), broken_picture=number)
    return Surveyed(key, path, tuple(pictures), rasters, text)


def _files(members: Mapping[str, bytes], kind: str) -> list[bytes]:
    """The members of a kind, in the order of their numbers; an index lists its fields in that order."""
    return [data for field, data in members.items() if field.rstrip("0123456789") == kind]


def _pictured(data: bytes) -> Pictured:
    """InputError: it cannot be decoded."""
    image = decode_image(data)
    height, width = image.shape[:2]
    pixels = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
    return Pictured(hashlib.sha256(data).hexdigest(), pixels, perceptual_hash(image), width, height)

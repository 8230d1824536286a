"""What the checks need to know of each sample, read once: hashes and sizes of its pictures and rasters, its text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from data_engine.broken_samples import BrokenSampleError
from data_engine.decode import decode_image
from data_engine.file_facts import decode_raster
from data_engine.index import ShardIndex
from data_engine.progress import tracked
from data_engine.quality.perceptual import perceptual_hash
from data_engine.quality.texts import sample_text
from data_engine.raster_picture import first_nodata, raster_picture
from data_engine.reader import ShardReader
from mmzoo.errors import InputError


@dataclass(frozen=True, slots=True)
class Pictured:
    """One picture or raster: sha256 of its file and of its pixels, width and height in px.

    `look`: 64 bits; None of what shows nothing, or is not looked at.
    """

    file_hash: str
    pixel_hash: str
    look: int | None
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Surveyed:
    """One sample. `pictures` and `rasters` in their order, counted from 0 as in `image, image1, ...`.

    `labels`: hash of mask, objects and number, "" without these. `broken`: why the sample cannot be read, and
    `broken_picture` which of its pictures cannot.
    """

    key: str
    path: str
    pictures: tuple[Pictured, ...] = ()
    rasters: tuple[Pictured, ...] = ()
    text: str = ""
    labels: str = ""
    broken: str | None = None
    broken_picture: int | None = None

    @property
    def is_text(self) -> bool:
        """Whether it shows nothing."""
        return not self.pictures and not self.rasters

    @property
    def shown(self) -> tuple[Pictured, ...]:
        """What it looks like: its pictures, or else its first raster; those behind it may be labels."""
        return self.pictures or self.rasters[:1]


class Looks(NamedTuple):
    """Of the P pictures that show something: row of the sample int64, number in it int64, look uint64; (P,) each."""

    rows: np.ndarray
    numbers: np.ndarray
    hashes: np.ndarray


def survey(index: ShardIndex) -> list[Surveyed]:
    """All samples, in the order of the index. Samples that cannot be read are kept, with the reason."""
    reader = ShardReader(index)
    return [_surveyed(reader, row) for row in tracked(range(index.count), "reading samples", index.count)]


def looks(samples: Sequence[Surveyed]) -> Looks:
    """The looks of all pictures, in the order of the rows."""
    found = [
        (row, number, picture.look)
        for row, sample in enumerate(samples)
        for number, picture in enumerate(sample.shown)
        if picture.look is not None
    ]
    rows, numbers, hashes = zip(*found, strict=True) if found else ((), (), ())
    return Looks(np.array(rows, np.int64), np.array(numbers, np.int64), np.array(hashes, np.uint64))


def _surveyed(reader: ShardReader, row: int) -> Surveyed:
    key = reader.index.key(row)
    try:
        _, members = reader.members(row)
        meta = json.loads(members["json"])
        path, text = str(meta.get("path") or meta.get("origin") or key), sample_text(meta)
        labels = _labels(meta, members)
    except (BrokenSampleError, ValueError, LookupError, AttributeError) as fault:
        return Surveyed(key, key, broken=f"json cannot be read: {fault}")
    pictures: list[Pictured] = []
    for number, data in enumerate(_files(members, "image")):
        try:
            image = decode_image(data)
        except InputError as mistake:
            return Surveyed(key, path, text=text, labels=labels, broken=str(mistake), broken_picture=number)
        pictures.append(_pictured(data, image, image))
    rasters: list[Pictured] = []
    for data in _files(members, "raster"):
        try:
            bands = decode_raster(data)
        except InputError as mistake:
            return Surveyed(key, path, text=text, labels=labels, broken=str(mistake))
        seen = None if pictures or rasters else raster_picture(bands, first_nodata(meta))
        rasters.append(_pictured(data, bands, seen))
    return Surveyed(key, path, tuple(pictures), tuple(rasters), text, labels)


def _files(members: Mapping[str, bytes], kind: str) -> list[bytes]:
    """The members of a kind, in the order of their numbers; an index lists its fields in that order."""
    return [data for field, data in members.items() if field.rstrip("0123456789") == kind]


def _pictured(data: bytes, pixels: np.ndarray, seen: np.ndarray | None) -> Pictured:
    """`pixels`: (H, W, 3) of a picture, (bands, H, W) of a raster; `seen`: uint8 (H, W, 3), how it looks."""
    height, width = pixels.shape[:2] if seen is pixels else pixels.shape[-2:]
    hashed = hashlib.sha256(f"{pixels.dtype}{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    look = None if seen is None else perceptual_hash(seen)
    return Pictured(hashlib.sha256(data).hexdigest(), hashed, look, width, height)


def _labels(meta: Mapping[str, Any], members: Mapping[str, bytes]) -> str:
    """What is to be learnt from the pictures beside words: the same picture with another mask is another sample."""
    told = {name: meta[name] for name in ("regions", "number") if meta.get(name) not in (None, [])}
    mask = members.get("mask")
    if not told and mask is None:
        return ""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode() + (mask or b"")).hexdigest()

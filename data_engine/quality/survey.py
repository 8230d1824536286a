"""What the checks need to know of each sample, read once: hashes of its pictures, its text, its size."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

PICTURE = re.compile(r"(image|raster)\d*")  # members that are pictures or rasters; see record_members.py


@dataclass(frozen=True, slots=True)
class Surveyed:
    """One sample. `file_hash`, `pixel_hash`: sha256 over all its pictures and rasters, in order, None without any.

    `looks` (64 bits each) are of its pictures, or else of its first raster, whose size `width` and `height`, px, are
    those of the first, 0 without one. `labels`: hash of mask, objects and number, "" without these. `broken`: why it
    cannot be read.
    """

    key: str
    path: str
    file_hash: str | None = None
    pixel_hash: str | None = None
    looks: tuple[int, ...] = ()
    width: int = 0
    height: int = 0
    text: str = ""
    broken: str | None = None
    labels: str = ""


def survey(index: ShardIndex) -> list[Surveyed]:
    """All samples of a shard folder, in the order of its rows."""
    reader = ShardReader(index)
    return [_surveyed(reader, row) for row in tracked(range(index.count), "reading samples", index.count)]


def looks(samples: Sequence[Surveyed]) -> tuple[np.ndarray, np.ndarray]:
    """(rows int64, 64-bit hashes uint64) of all pictures: a row stands there once for each picture that it has."""
    pairs = [(row, look) for row, sample in enumerate(samples) for look in sample.looks]
    return np.array([row for row, _ in pairs], np.int64), np.array([look for _, look in pairs], np.uint64)


def _surveyed(reader: ShardReader, row: int) -> Surveyed:
    key = reader.key(row)
    try:
        _, members = reader.members(row)
        meta = json.loads(members["json"])
        path = str(meta.get("path") or meta.get("origin") or key)
    except (BrokenSampleError, ValueError, LookupError, AttributeError) as fault:
        return Surveyed(key, key, broken=f"json cannot be read: {fault}")
    text, labels = sample_text(meta), _labels(meta, members)
    names = [name for name in members if PICTURE.fullmatch(name)]
    try:
        shown, pixels = _decoded(names, members, first_nodata(meta))
    except InputError as mistake:
        return Surveyed(key, path, text=text, labels=labels, broken=str(mistake))
    if not names:
        return Surveyed(key, path, text=text, labels=labels)
    files = hashlib.sha256(b"".join(hashlib.sha256(members[name]).digest() for name in names)).hexdigest()
    height, width = shown[0].shape[:2]
    seen = tuple(map(perceptual_hash, shown))
    return Surveyed(key, path, files, pixels, seen, width, height, text, labels=labels)


def _decoded(names: Sequence[str], members: Mapping[str, bytes], nodata: float | None) -> tuple[list[np.ndarray], str]:
    """(the pictures, or else the first raster as one, uint8 (H, W, 3); sha256 of the pixels of all these members)."""
    pictures, rasters = [], []
    hashed = hashlib.sha256()
    for name in names:
        pixels = decode_raster(members[name]) if name.startswith("raster") else decode_image(members[name])
        (rasters if name.startswith("raster") else pictures).append(pixels)
        hashed.update(f"{pixels.dtype}{pixels.shape}".encode() + pixels.tobytes())
    return pictures or [raster_picture(raster, nodata) for raster in rasters[:1]], hashed.hexdigest()


def _labels(meta: Mapping[str, Any], members: Mapping[str, bytes]) -> str:
    """What is to be learnt from the pictures beside words: the same picture with another mask is another sample."""
    told = {name: meta[name] for name in ("regions", "number") if meta.get(name) not in (None, [])}
    mask = members.get("mask")
    if not told and mask is None:
        return ""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode() + (mask or b"")).hexdigest()

"""What the checks need to know of each sample, read once: hashes of its pictures, its text, its size."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from data_engine.broken_samples import BrokenSampleError
from data_engine.decode import decode_image
from data_engine.index import ShardIndex
from data_engine.progress import tracked
from data_engine.quality.perceptual import perceptual_hash
from data_engine.quality.texts import sample_text
from data_engine.reader import ShardReader
from mmzoo.errors import InputError

SEEN = ("image", "mask", "raster")  # the starts of the names of fields that are looked at


@dataclass(frozen=True, slots=True)
class Surveyed:
    """One sample. `file_hash`, `pixel_hash`: sha256 over all its pictures, mask and rasters, None without any; in the
    second the pictures count by their pixels. `looks`: 64 bits of each picture, None of one that shows nothing.
    Width and height: of the first picture, px, 0 without one. `broken`: why it cannot be read.
    """

    key: str
    path: str
    file_hash: str | None = None
    pixel_hash: str | None = None
    looks: tuple[int | None, ...] = ()
    width: int = 0
    height: int = 0
    text: str = ""
    broken: str | None = None


def survey(index: ShardIndex) -> list[Surveyed]:
    """All samples of a shard folder, in the order of its rows."""
    reader = ShardReader(index)
    return [_surveyed(reader, row) for row in tracked(range(index.count), "reading samples", index.count)]


def looks(samples: list[Surveyed]) -> tuple[np.ndarray, np.ndarray]:
    """(row int64, 64-bit hash uint64) of every picture that shows something."""
    found = [(row, look) for row, sample in enumerate(samples) for look in sample.looks if look is not None]
    return np.array([row for row, _ in found], np.int64), np.array([look for _, look in found], np.uint64)


def _surveyed(reader: ShardReader, row: int) -> Surveyed:
    key = reader.key(row)
    try:
        _, members = reader.members(row)
        meta = json.loads(members["json"])
        path = str(meta.get("path") or meta.get("origin") or key)
    except (BrokenSampleError, ValueError, LookupError, AttributeError) as fault:
        return Surveyed(key, key, broken=f"json cannot be read: {fault}")
    files, pixels, found = hashlib.sha256(), hashlib.sha256(), []
    sides = 0, 0
    for field, data in members.items():
        if not field.startswith(SEEN):
            continue
        files.update(f"{field} {len(data)} ".encode() + data)
        if not field.startswith("image"):
            pixels.update(f"{field} {len(data)} ".encode() + data)
            continue
        try:
            image = decode_image(data)
        except InputError as mistake:
            return Surveyed(key, path, text=sample_text(meta), broken=f"{field}: {mistake}")
        sides = sides if found else (image.shape[1], image.shape[0])
        pixels.update(f"{field} {image.shape} ".encode() + image.tobytes())
        found.append(perceptual_hash(image))
    if not any(field.startswith(SEEN) for field in members):
        return Surveyed(key, path, text=sample_text(meta))
    return Surveyed(key, path, files.hexdigest(), pixels.hexdigest(), tuple(found), *sides, sample_text(meta))

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


@dataclass(frozen=True, slots=True)
class Surveyed:
    """One sample. `file_hash`, `pixel_hash` (sha256, None without a picture) and `look` (64 bits) are of its first
    picture; width and height in px, 0 without one; `broken`: why it cannot be read.
    """

    key: str
    path: str
    file_hash: str | None = None
    pixel_hash: str | None = None
    look: int | None = None
    width: int = 0
    height: int = 0
    text: str = ""
    broken: str | None = None


def survey(index: ShardIndex) -> list[Surveyed]:
    """All samples of a shard folder, in the order of its rows."""
    reader = ShardReader(index)
    return [_surveyed(reader, row) for row in tracked(range(index.count), "reading samples", index.count)]


def looks(samples: list[Surveyed]) -> tuple[np.ndarray, np.ndarray]:
    """(rows with a picture int64, their 64-bit hashes uint64)."""
    rows = [row for row, sample in enumerate(samples) if sample.look is not None]
    return np.array(rows, np.int64), np.array([samples[row].look for row in rows], np.uint64)


def _surveyed(reader: ShardReader, row: int) -> Surveyed:
    key = reader.key(row)
    try:
        _, members = reader.members(row)
        meta = json.loads(members["json"])
        path = str(meta.get("path") or meta.get("origin") or key)
    except (BrokenSampleError, ValueError, LookupError, AttributeError) as fault:
        return Surveyed(key, key, broken=f"json cannot be read: {fault}")
    data = members.get("image")
    if data is None:
        return Surveyed(key, path, text=sample_text(meta))
    try:
        image = decode_image(data)
    except InputError as mistake:
        return Surveyed(key, path, text=sample_text(meta), broken=str(mistake))
    height, width = image.shape[:2]
    pixels = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
    file_hash = hashlib.sha256(data).hexdigest()
    return Surveyed(key, path, file_hash, pixels, perceptual_hash(image), width, height, sample_text(meta))

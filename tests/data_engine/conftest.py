"""Fakes for the data engine: small image folders and shard sets, made in tmp_path."""

from __future__ import annotations

import gc
import io
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_engine.image_shards import BuildSettings, build_image_shards
from data_engine.index import ShardIndex, key_hash, write_index
from data_engine.shards import ShardWriter


def encode(pixels: np.ndarray, form: str = "JPEG", **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def picture(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """make(count) -> a folder with `count` JPEG and PNG files in two subfolders."""

    def make(count: int = 10, name: str = "photos") -> Path:
        folder = tmp_path / name
        for number in range(count):
            form = "PNG" if number % 3 == 0 else "JPEG"
            file = folder / f"Set {number % 2}" / f"img.{number:03d}.{form.lower()}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(picture(number), form))
        return folder

    return make


@pytest.fixture
def shard_folder(tmp_path: Path, image_folder: Callable[..., Path]) -> Callable[..., Path]:
    """make(count, **settings) -> a shard folder, several small shards."""

    def make(count: int = 10, **settings) -> Path:
        output = tmp_path / "shards"
        settings = {"shard_bytes": 8000, "val_fraction": 0.3, **settings}
        build_image_shards(BuildSettings(image_folder(count), output, **settings))
        return output

    return make


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """encoded(pixels, form, **Pillow's save options) -> the bytes of an image file."""
    return encode


@pytest.fixture
def pixels() -> Callable[..., np.ndarray]:
    """pixels(seed, height, width) -> a smooth uint8 RGB picture."""
    return picture


@pytest.fixture
def bomb() -> bytes:
    """A PNG of a few bytes whose header claims 60,000 x 60,000 px."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="session")
def exact_shards() -> Callable[..., Path]:
    """make(folder, [3, 1, 4]) -> a shard folder of three shards with 3, 1 and 4 PNGs of 4 px, no two alike."""

    def make(folder: Path, sizes: list[int]) -> Path:
        folder.mkdir()
        places = []
        with ShardWriter(folder, 10**9) as writer:
            for size in sizes:
                for _ in range(size):
                    places.append(writer.add(f"row-{len(places):04d}", tiny_members(len(places))))
                writer.close()
        columns = {
            "shard": np.array([members[0].shard for members in places], np.int32),
            "offset": np.array([[member.offset for member in members] for members in places], np.int64),
            "size": np.array([[member.size for member in members] for members in places], np.int64),
            "key_hash": np.array([key_hash(f"row-{row:04d}") for row in range(len(places))], np.uint64),
            "split": np.arange(len(places), dtype=np.uint8) % 4 // 3,
            "width": np.full(len(places), 4, np.int32),
            "height": np.full(len(places), 4, np.int32),
        }
        splits = {"names": ["train", "val"]}
        description = {"kind": "images", "source": "made", "fields": ["image", "json"], "splits": splits}
        write_index(folder, description, writer.shards, columns)
        return folder

    return make


@cache
def tiny_members(row: int) -> dict[str, bytes]:
    image = np.random.default_rng(row).integers(0, 256, (4, 4, 3), np.uint8)
    return {"png": encode(image, "PNG"), "json": json.dumps({"schema_version": 1, "path": f"{row}.png"}).encode()}


@pytest.fixture(scope="session")
def spoil() -> Callable[..., None]:
    """spoil(folder, rows, field="image"): overwrites a member of these rows with zeros, as bit rot would."""

    def overwrite(folder: Path, rows: Sequence[int], field: str = "image") -> None:
        index = ShardIndex.open(folder)
        for row in rows:
            path, offset, size = index.place(row, field)
            with path.open("r+b") as tar:
                tar.seek(offset)
                tar.write(bytes(size))
            os.utime(path, (1e9, 1e9))  # with a newer date the index would refuse to open

    return overwrite


@pytest.fixture(autouse=True)
def ended_workers() -> Iterator[None]:
    """Ends the workers of a loader that a caught error still holds on to, so that the next test counts its own only."""
    yield
    if multiprocessing.active_children():
        gc.collect()

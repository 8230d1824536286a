"""Fakes for the data engine: small image folders and shard sets, made in tmp_path."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_engine.image_shards import BuildSettings, build_image_shards


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

"""JPEG and WebP as yardsticks: the best quality that fits a budget of bytes, with and without the container's headers.

A photograph of 128 px in a few hundred bytes is mostly header, and codes have none: so both countings are given.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, features

JPEG_START_OF_SCAN = 0xDA
VP8_FRAME_HEADER = 10  #: bytes: frame tag 3, start code 3, width and height 4 (RFC 6386, section 9.1)
RIFF_AND_CHUNK = 20  #: bytes: "RIFF" size "WEBP" "VP8 " size


@dataclass(frozen=True)
class Codec:
    """One lossy codec. `encode(pixels, quality)`: uint8 (H, W, 3) -> a file. `header`: its bytes that are no pixels."""

    name: str
    settings: str
    qualities: range
    encode: Callable[[np.ndarray, int], bytes]
    header: Callable[[bytes], int]


@dataclass(frozen=True)
class Fitted:
    """One encoding: quality, size of the file and of its headers in bytes, the decoded uint8 (H, W, 3).

    `over`: even the lowest quality needs more than the budget; this is the lowest.
    """

    quality: int
    size: int
    header: int
    pixels: np.ndarray
    over: bool


class Encodings:
    """All encodings of one image by one codec, made when they are asked for and kept for the next budget."""

    def __init__(self, codec: Codec, pixels: np.ndarray) -> None:
        self.codec = codec
        self.pixels = pixels
        self._files: dict[int, bytes] = {}

    def file(self, quality: int) -> bytes:
        """The encoded image at a quality."""
        if quality not in self._files:
            self._files[quality] = self.codec.encode(self.pixels, quality)
        return self._files[quality]

    def cost(self, quality: int, with_header: bool) -> int:
        """Bytes that count."""
        data = self.file(quality)
        return len(data) - (0 if with_header else self.codec.header(data))

    def fit(self, budget: float, *, with_header: bool) -> Fitted:
        """The highest quality whose bytes fit `budget`, by bisection: sizes grow with the quality."""
        low, high = self.codec.qualities[0], self.codec.qualities[-1]
        if self.cost(low, with_header) > budget:
            return self._fitted(low, over=True)
        if self.cost(high, with_header) <= budget:
            return self._fitted(high, over=False)
        while high - low > 1:
            middle = (low + high) // 2
            if self.cost(middle, with_header) <= budget:
                low = middle
            else:
                high = middle
        return self._fitted(low, over=False)

    def fit_reference(self, budget: float, *, with_header: bool) -> Fitted:
        """`fit` by trying every quality."""
        fitting = [quality for quality in self.codec.qualities if self.cost(quality, with_header) <= budget]
        return self._fitted(max(fitting, default=self.codec.qualities[0]), over=not fitting)

    def _fitted(self, quality: int, over: bool) -> Fitted:
        data = self.file(quality)
        with Image.open(io.BytesIO(data)) as image:
            decoded = np.asarray(image.convert("RGB"))
        return Fitted(quality, len(data), self.codec.header(data), decoded, over)


def jpeg_header_bytes(data: bytes) -> int:
    """Bytes of a baseline JPEG outside its entropy-coded scan: markers, tables, frame and scan headers, end marker."""
    position = 2
    while data[position + 1] != JPEG_START_OF_SCAN:
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    scan = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return scan + 2


def webp_header_bytes(data: bytes) -> int:
    """Bytes of a simple lossy WebP outside its VP8 partitions: RIFF and chunk headers, frame header, padding."""
    if data[12:16] != b"VP8 ":
        raise ValueError(f"a lossy WebP of one chunk was expected, this begins with {data[12:16]!r}")
    return len(data) - (int.from_bytes(data[16:20], "little") - VP8_FRAME_HEADER)


def _encode(pixels: np.ndarray, quality: int, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, quality=quality, **options)
    return stream.getvalue()


#: Optimised Huffman tables make small files smaller; quality above 95 is not meant for photographs (Pillow's manual).
JPEG = Codec(
    "jpeg",
    "baseline, 4:2:0, optimised Huffman tables, quality 1 to 95",
    range(1, 96),
    partial(_encode, kind="JPEG", optimize=True, subsampling="4:2:0"),
    jpeg_header_bytes,
)
WEBP = Codec(
    "webp",
    "lossy VP8, method 6, quality 0 to 100",
    range(101),
    partial(_encode, kind="WEBP", method=6),
    webp_header_bytes,
)
CODECS = {codec.name: codec for codec in (JPEG, WEBP)}


def codec_description(name: str) -> dict[str, str | None]:
    """Settings and library version of a codec, for the record."""
    library = features.version_feature("libjpeg_turbo") if name == "jpeg" else features.version_module("webp")
    return {"settings": CODECS[name].settings, "library": library}

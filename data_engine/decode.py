"""Image bytes -> uint8 (H, W, 3) RGB, by rules that are written down once, each counted when it applies.

EXIF orientation is applied; alpha is dropped (or laid on white); grey is replicated; CMYK goes through Pillow;
16-bit values lose their low byte (never Pillow's clipping convert); of an animation the first frame counts. The pixel
limit is checked from the header, before anything is decoded. The format is found from the content, out of a short
list. There is no pickle.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from PIL import Image

from data_engine.jpeg_header import plain_jpeg
from mmzoo.errors import InputError

MAX_PIXELS = 89_478_485  # Pillow's own limit: 256 MiB of RGB
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tif", "BMP": "bmp", "GIF": "gif"}
EXIF_ORIENTATION = 0x0112
# What Pillow raises on damaged files, found in its plugins; programming errors of ours are not caught by it.
DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, RuntimeError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)


@dataclass(frozen=True, slots=True)
class DecodeRules:
    """`background`: what shows through transparent pixels ("white"), or None to drop alpha. `max_pixels`: refuse above.

    `fast`: decode plain RGB JPEG with torchvision, which is equal to Pillow pixel by pixel and faster.
    """

    background: Literal["white"] | None = None
    max_pixels: int = MAX_PIXELS
    fast: bool = False


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image says of itself: `format` as in EXTENSIONS, `mode` of the stored pixels in Pillow's words."""

    format: str
    mode: str


def looks_like_image(start: bytes) -> bool:
    """Whether the first 16 bytes of a file are those of one of the formats in EXTENSIONS."""
    if start[:2] == b"BM":
        return start[6:10] == bytes(4)
    if start[:4] == b"RIFF":
        return start[8:12] == b"WEBP"
    return start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))


def read_header(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Format and mode of an image, without decoding it. InputError: not an image we read, or too many pixels."""
    image = _open(data, max_pixels)
    return ImageHeader(_format(image), image.mode)


def decode_image(data: bytes, rules: DecodeRules | None = None, counts: Counter[str] | None = None) -> np.ndarray:
    """uint8 (H, W, 3) of an encoded image; `counts` gains one for each rule that applied.

    InputError, one line without the place (the caller knows it): unreadable, truncated, too large, no 8-bit meaning.
    """
    rules = rules or DecodeRules()
    counts = Counter() if counts is None else counts
    pixels = _plain_jpeg_pixels(data, rules, counts) if rules.fast else None
    if pixels is not None:
        return pixels
    image = _open(data, rules.max_pixels)
    counts["decoded"] += 1
    if rules.fast and image.format == "JPEG" and image.mode == "RGB":
        pixels = _torchvision_jpeg(data)
        if pixels is not None:
            return _oriented(pixels, _orientation(image), counts)
    return _pillow_pixels(image, rules, counts)


@cache
def load_jpeg_decoder() -> Any:
    """torchvision's JPEG decoder, or None where this build has none. Imports it, once: hundreds of milliseconds."""
    import torch
    import torchvision.io  # registers the operator  # noqa: F401

    # The operator itself: its Python wrapper warns at each call that it will move to another package.
    return getattr(torch.ops.image, "decode_jpeg", None)


def image_pixels(image: Image.Image, rules: DecodeRules | None = None) -> np.ndarray:
    """uint8 (H, W, 3) of an image that Pillow opened or made, by the rules of `decode_image`. InputError as there."""
    if getattr(image, "n_frames", 1) > 1:
        image.seek(0)
    return _pillow_pixels(image, rules or DecodeRules(), Counter())


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silences Pillow's warnings about files that we judge ourselves. For commands, not for library code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        yield


def _open(data: bytes, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(EXTENSIONS))
    except Image.DecompressionBombError as fault:
        raise InputError(f"too many pixels, not decoded: {_one_line(fault)}") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"not an image of a known format ({', '.join(EXTENSIONS)})") from None
    except DAMAGE as fault:
        raise InputError(f"unreadable image header: {_one_line(fault)}") from None
    _check_size(*image.size, max_pixels)
    return image


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise InputError(f"too many pixels, not decoded: {width} x {height} px is above the limit of {max_pixels} px")


def _format(image: Image.Image) -> str:
    return "JPEG" if image.format == "MPO" else str(image.format)  # MPO: a phone's JPEG with a second picture behind


def _one_line(fault: Exception) -> str:
    return " ".join(str(fault).split()) or type(fault).__name__


def _orientation(source: Image.Image | bytes) -> int:
    """EXIF orientation of an opened image, or of the bytes of an EXIF segment; 1 (upright) when it has none."""
    try:
        if isinstance(source, bytes):
            exif = Image.Exif()
            exif.load(source)
        else:
            exif = source.getexif()
        orientation = exif.get(EXIF_ORIENTATION, 1)
    except DAMAGE:
        return 1  # damaged EXIF beside sound pixels is common, and every viewer shows such a file upright
    return orientation if orientation in range(1, 9) else 1


def _plain_jpeg_pixels(data: bytes, rules: DecodeRules, counts: Counter[str]) -> np.ndarray | None:
    """A plain JPEG decoded without Pillow; None for anything else, and for damage: Pillow words the error."""
    header = plain_jpeg(data)
    if header is None:
        return None
    _check_size(header.width, header.height, rules.max_pixels)
    pixels = _torchvision_jpeg(data)
    if pixels is None:
        return None
    counts["decoded"] += 1
    return _oriented(pixels, _orientation(header.exif) if header.exif else 1, counts)


def _pillow_pixels(image: Image.Image, rules: DecodeRules, counts: Counter[str]) -> np.ndarray:
    try:  # Only where Pillow meets the file's bytes: a programming error further on is no fault of the file.
        counts["first_frame"] += int(getattr(image, "n_frames", 1) > 1)
        counts["sixteen_bit"] += int(";16" in str(getattr(image, "tile", "")))
        if image.format == "TIFF":  # Pillow turns it while loading, and then removes the tag
            counts["exif_oriented"] += int(_orientation(image) != 1)
        image.load()
    except DAMAGE as fault:
        raise InputError(f"damaged or truncated {_format(image)}: {_one_line(fault)}") from None
    return _oriented(np.asarray(_rgb(image, rules, counts)), _orientation(image), counts)


def _oriented(pixels: np.ndarray, orientation: int, counts: Counter[str]) -> np.ndarray:
    """Pixels turned as EXIF asks (1 to 8); contiguous and writable."""
    counts["exif_oriented"] += int(orientation != 1)
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    writable = pixels.flags.c_contiguous and pixels.flags.writeable
    return pixels if writable else np.array(pixels, order="C")


def _rgb(image: Image.Image, rules: DecodeRules, counts: Counter[str]) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = _eight_bit_grey(image)
    if image.mode in ("I", "F"):
        kind = "floating-point" if image.mode == "F" else "integer"
        raise InputError(f"mode {image.mode} (32-bit {kind} values) has no defined 8-bit range")
    counts["grey"] += int(image.mode in ("1", "L", "LA", "La"))
    counts["cmyk"] += int(image.mode == "CMYK")
    counts["palette"] += int(image.mode in ("P", "PA"))
    if not image.has_transparency_data:
        return image.convert("RGB")
    counts["alpha_on_white" if rules.background else "alpha_dropped"] += 1
    if image.mode == "La":
        image = image.convert("LA")
    image = image.convert("RGBA")
    if rules.background:
        image = Image.alpha_composite(Image.new("RGBA", image.size, rules.background), image)
    return image.convert("RGB")


def _eight_bit_grey(image: Image.Image) -> Image.Image:
    """The high byte of each 16-bit grey value, as Pillow does for 16-bit colour; a transparent value as alpha."""
    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _torchvision_jpeg(data: bytes) -> np.ndarray | None:
    """The pixels, or None where torchvision cannot: then Pillow decides, and words the error."""
    decode = load_jpeg_decoder()
    if decode is None:
        return None
    import torch

    encoded = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
    try:
        pixels = decode(encoded, 3, False)  # 3: RGB; False: orientation is ours
    except RuntimeError:
        return None
    return pixels.permute(1, 2, 0).contiguous().numpy()

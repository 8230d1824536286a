"""Pictures inside the page: pixels to a data URI, without loss."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, features

#: Pictures up to this size (px, longer side) are drawn with hard pixels: smoothing would hide what a model did.
SMALL = 96


@dataclass(frozen=True)
class Embedded:
    """uri: "data:image/...;base64,..."; width, height in px; small: to be drawn with hard pixels."""

    uri: str
    width: int
    height: int
    small: bool


def embed(image: np.ndarray) -> Embedded:
    """`image` uint8, (H, W, 3) RGB or (H, W) grey, as PNG or lossless WebP, whichever is smaller.

    Equal pixels give equal text. ValueError for another shape or type.
    """
    if image.dtype != np.uint8 or image.size == 0 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"a picture is uint8, (H, W, 3) or (H, W), not {image.dtype} {image.shape}")
    picture = Image.fromarray(image)
    kind, content = _smallest(picture)
    text = base64.b64encode(content).decode("ascii")
    return Embedded(f"data:image/{kind};base64,{text}", picture.width, picture.height, max(picture.size) <= SMALL)


def _smallest(picture: Image.Image) -> tuple[str, bytes]:
    """The format's name and the file, PNG where both are equal."""
    files = [("png", _encode(picture, "PNG", optimize=True))]
    if features.check("webp") and max(picture.size) <= 16383:  # the most that WebP can hold
        files.append(("webp", _encode(picture, "WEBP", lossless=True, quality=75, method=4)))
    return min(files, key=lambda file: len(file[1]))


def _encode(picture: Image.Image, kind: str, **options: int | bool) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()

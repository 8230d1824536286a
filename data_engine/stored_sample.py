"""A sample as sources give it and shards keep it: typed fields, with every file as its original bytes.

Coordinates are in px of the image as decoded: origin top left, x to the right, y down.
"""

from __future__ import annotations

import errno
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

Point = tuple[float, float]
IMAGE_PLACEHOLDER = "<image>"
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file's bytes: `data` in hand, or `size` bytes (None: all) at `offset` of `path`. `name`: for people."""

    name: str
    path: Path | None = None
    offset: int = 0
    size: int | None = None
    data: bytes | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """The bytes. OSError: the file cannot be read."""
        if self.data is not None:
            return self.data
        if self.path is None:
            raise ValueError(f"{self.name} has neither bytes nor a path")
        kind = self.path.stat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # a pipe or a device may never end
            raise OSError(errno.EINVAL, "not a regular file", str(self.path))
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(-1 if self.size is None else self.size)

    def loaded(self) -> StoredFile:
        """The same file with its bytes in hand, and no path."""
        return StoredFile(self.name, data=self.read())


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says. `role` is one of ROLES; IMAGE_PLACEHOLDER in the text stands for the next image."""

    role: str
    text: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role {self.role!r} is not one of {', '.join(ROLES)}")


@dataclass(frozen=True, slots=True)
class Region:
    """An object in an image: `box` (x1, y1, x2, y2), `quad` four corners of an oriented box, `polygons`, or `rle`.

    `rle` is COCO's run-length mask, as it came. `ignore`: not to be counted. `image`: number of the image, from 0.
    """

    label: str
    box: tuple[float, float, float, float] | None = None
    quad: tuple[Point, Point, Point, Point] | None = None
    polygons: tuple[tuple[Point, ...], ...] = ()
    rle: Mapping[str, Any] | None = None
    ignore: bool = False
    image: int = 0

    def bounds(self) -> tuple[float, float, float, float] | None:
        """(x1, y1, x2, y2) of all its shapes; None where it has only a run-length mask, or none."""
        corners = [self.box[:2], self.box[2:]] if self.box else []
        points = [*corners, *(self.quad or ()), *(point for polygon in self.polygons for point in polygon)]
        if not points:
            return None
        xs, ys = zip(*points, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def __post_init__(self) -> None:
        points = [*(self.quad or ()), *(point for polygon in self.polygons for point in polygon)]
        values = [*(self.box or ()), *(value for point in points for value in point)]
        if not all(abs(value) <= sys.float_info.max for value in values):  # also of whole numbers beyond any float
            raise ValueError(f"a coordinate of {self.label!r} is not a finite number")
        if self.box and (self.box[2] < self.box[0] or self.box[3] < self.box[1]):
            raise ValueError(f"box {list(self.box)} of {self.label!r} ends before it starts; x1, y1, x2, y2 is due")
        if any(len(polygon) < 3 for polygon in self.polygons):
            raise ValueError(f"a polygon of {self.label!r} has fewer than 3 corners")


@dataclass(frozen=True, slots=True)
class StoredSample:
    """One sample. `key`: see shards.py; `source`: name of the data set; `origin`: file and line it was read from.

    `mask`: one integer a pixel of the first image or raster. `rasters`: GeoTIFFs, whose CRS, transform and nodata are
    in their bytes. `meta`: JSON values that have no field of their own. `stated`: (width, height) in px of the first
    image as its annotations have it; it is checked and not kept.
    """

    key: str
    source: str
    images: tuple[StoredFile, ...] = ()
    rasters: tuple[StoredFile, ...] = ()
    mask: StoredFile | None = None
    conversation: tuple[Turn, ...] = ()
    regions: tuple[Region, ...] = ()
    text: str | None = None
    number: float | None = None
    license: str | None = None
    origin: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    stated: tuple[int, int] | None = field(default=None, repr=False, compare=False)

    @property
    def files(self) -> list[StoredFile]:
        """All its files, in the order of the members."""
        return [*self.images, *([self.mask] if self.mask else []), *self.rasters]

    @property
    def text_characters(self) -> int:
        """Characters (code points) of the conversation and the text, placeholders included."""
        return sum(len(turn.text) for turn in self.conversation) + len(self.text or "")

    def loaded(self) -> StoredSample:
        """The same sample with the bytes of all its files in hand."""
        return replace(
            self,
            images=tuple(file.loaded() for file in self.images),
            rasters=tuple(file.loaded() for file in self.rasters),
            mask=self.mask.loaded() if self.mask else None,
        )


def placeholder_fault(conversation: tuple[Turn, ...], images: int) -> str | None:
    """What is wrong with the count of image placeholders in a conversation, or None."""
    count = sum(turn.text.count(IMAGE_PLACEHOLDER) for turn in conversation)
    return None if count == images else f"{count} {IMAGE_PLACEHOLDER} in the conversation for {images} images"

"""The rasters that are measured with their masks: a CSV list, or a folder with `image` and `mask` in it."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_engine.index import key_hash
from data_engine.splits import group_of, group_pattern
from geospatial.class_masks import ClassMask, ClassTable
from geospatial.raster import Pixels, Raster, RasterSettings
from geospatial.raster_sources import RasterSource, find_pairs
from mmzoo.durable_files import sha256_of
from mmzoo.errors import InputError

IMAGES, MASKS = ("image", "images"), ("mask", "masks", "label", "labels")


class Item(NamedTuple):
    """A raster, its mask, and what it is resampled with."""

    key: str
    group: str
    image: Path
    mask: Path


class Opened(NamedTuple):
    """What is read of an item; `labels` uint8 (H, W); `domain` of the values."""

    pixels: Pixels
    labels: np.ndarray
    domain: str


@dataclass(frozen=True)
class RasterSet:
    """The rasters of one domain in the order of their keys. `identity`: sha256 of names, contents and groups."""

    name: str
    kind: str
    split: str | None
    items: Sequence[Item]
    identity: str


def open_rasters(path: Path, split: str, group: str | None, limit: int | None) -> RasterSet:
    """A list with a column `split` gives the rows of that split ("all": every row), any other all that it has.

    `limit`: so many, chosen by the hash of their keys. InputError: nothing there, no row of the split, no masks.
    """
    rows = _listed(path) if path.suffix.lower() == ".csv" else _in_folder(path)
    splits = {row.get("split") for row in rows} - {None, ""}
    if splits and split != "all":
        rows = [row for row in rows if row.get("split") == split]
        if not rows:
            known = ", ".join(sorted(map(str, splits)))
            raise InputError(f"{path} has no raster of the split {split!r}. It has {known}: --split, or --split all")
    pattern = group_pattern(group)
    items = [
        Item(row["key"], row.get("group") or group_of(row["key"], pattern), Path(row["image"]), Path(row["mask"]))
        for row in rows
    ]
    items.sort()
    if limit is not None:
        chosen = set(sorted((item.key for item in items), key=key_hash)[:limit])
        items = [item for item in items if item.key in chosen]
    named = "".join(
        f"{item.key} {item.group} {sha256_of(item.image)} {sha256_of(item.mask)}\n" for item in items
    )  # a mask that was mended is another set
    kind = "list" if path.suffix.lower() == ".csv" else "folder"
    identity = hashlib.sha256(named.encode()).hexdigest()
    return RasterSet(path.resolve().stem, kind, split if splits else None, items, identity)


def _listed(path: Path) -> list[dict[str, str]]:
    """The rows of a list with their keys; found and checked by the reader that trains from it."""
    pairs = find_pairs(RasterSource(str(path), name=path.stem, role="target"), 0.0)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [
        {**row, "key": pair.key, "image": str(pair.image), "mask": str(pair.mask)}
        for row, pair in zip(rows, pairs, strict=True)
    ]


def _in_folder(path: Path) -> list[dict[str, str]]:
    images, masks = _subfolder(path, IMAGES), _subfolder(path, MASKS)
    pairs = find_pairs(RasterSource(str(images), str(masks), name=path.name, role="target"), 0.0)
    return [{"key": pair.key, "image": str(pair.image), "mask": str(pair.mask)} for pair in pairs]


def _subfolder(path: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (path / name).is_dir():
            return path / name
    raise InputError(
        f"{path} has no folder {' or '.join(names)}. Give a folder with rasters in image/ and masks of the same names "
        f"in mask/, or a CSV list with the columns image and mask"
    )


def open_item(item: Item, settings: RasterSettings, table: ClassTable) -> Opened:
    """Reads a raster and its mask whole. InputError: they do not fit, or an id that is not in the table."""
    with Raster(item.image, settings) as raster:
        mask = ClassMask(item.mask, table, (raster.height, raster.width), item.image)
        try:
            return Opened(raster.read(), mask.read(), raster.domain)
        finally:
            mask.close()

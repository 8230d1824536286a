"""A data set on disk -> lists of rasters and masks of class ids that training and `mmzoo eval run` read.

Images stay where they are. Masks are written anew: one band, ids 0, 1, ... of the benchmark's classes, 255 elsewhere.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from data_engine.progress import tracked
from data_engine.splits import group_of, group_pattern, split_by_hash
from geospatial.class_masks import IGNORE
from geospatial.crossearth_sar.benchmarks import DataSet
from geospatial.mask_palette import palette_classes
from geospatial.raster import rasterio_faults, stored_bands
from mmzoo.durable_files import refused_writes_named
from mmzoo.errors import InputError

#: Share of the images of a source for validation, by hash of their group, where the data set has no splits of its own.
VAL_FRACTION = 0.1
MOST_OFF_PALETTE = 0.05  #: share of pixels without a colour nearby from which a palette is held for the wrong one
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Place:
    """A data set on disk: its folder, and what the user says instead of its record (None: the record's)."""

    data_set: DataSet
    folder: Path
    images: str | None = None
    masks: Mapping[str, str] | None = None
    codes: Path | None = None  #: JSON {class: [ids]} or {class: [r, g, b]}, instead of ids or palette
    role: str = "source"  #: a "target" is never trained on, so all of it is "val"; flags of the command begin with it
    val_fraction: float = VAL_FRACTION

    def described(self) -> DataSet:
        """The record with what the user says. InputError: it lacks what neither says."""
        layout = replace(
            self.data_set.layout,
            images=self.images or self.data_set.layout.images,
            masks=self.masks or self.data_set.layout.masks,
        )
        found = replace(self.data_set, layout=layout)
        if self.codes is not None:
            codes = _read_codes(self.codes, found.classes, found.coloured)
            coloured = {name: (code[0], code[1], code[2]) for name, code in codes.items()} if found.coloured else None
            found = replace(found, palette=coloured, ids=None if found.coloured else codes)
        if layout.images is None or layout.masks is None:
            raise InputError(
                f"{found.title}: how its files lie is not known here (layout: unverified). Say it with "
                f"--{self.role}-images, such as 'sar/*.tif', and --{self.role}-masks, such as sar=label"
            )
        if (found.palette if found.coloured else found.ids) is None:
            what = "{class: [red, green, blue]}" if found.coloured else "{class: [ids]}"
            raise InputError(
                f"{found.title}: the codes of its masks are not known here. Give --{self.role}-codes, a JSON of {what}"
            )
        return found


@dataclass(frozen=True)
class Built:
    """What was written: lists by name, images in all, and the share of mask pixels that no colour was near to."""

    lists: Mapping[str, Path]
    images: int
    off_palette: float


def build(place: Place, shared: Mapping[str, str], classes: Sequence[str], out: Path, name: str) -> Built:
    """out/NAME.csv (images with masks; for data sets with splits also out/NAME_SPLIT.csv) and out/NAME_masks/.

    shared: {class of the data set: class of `classes`}; other classes become 255. InputError: nothing there, a mask
    that is missing, an id or a palette that does not fit.
    """
    found = place.described()
    rows = _rows(found, place.folder)
    masks = out / f"{name}_masks"
    with refused_writes_named(masks):
        masks.mkdir(parents=True, exist_ok=True)
    off = pixels = 0
    written = []
    for number, (split, image, mask) in enumerate(tracked(rows, "masks", len(rows))):
        ids, stray = class_ids(mask, found, shared, classes)
        _check_size(image, mask, ids.shape)
        off, pixels = off + stray, pixels + ids.size
        file = masks / f"{number:06}_{image.stem}.png"
        _write_mask(file, ids)
        written.append((split, image, file))
    if pixels and off / pixels > MOST_OFF_PALETTE:
        raise InputError(
            f"{found.title}: {off / pixels:.0%} of the mask pixels are within {found.tolerance:g} of no colour of the "
            f"palette. Check the colours given with --{place.role}-codes"
        )
    return Built(_write_lists(written, place, found, out, name), len(rows), off / pixels if pixels else 0.0)


def class_ids(
    mask: Path, data_set: DataSet, shared: Mapping[str, str], classes: Sequence[str]
) -> tuple[np.ndarray, int]:
    """uint8 (H, W): place in `classes`, or IGNORE; and how many pixels were near no colour. InputError: odd ids."""
    stored = stored_bands(mask, "mask")
    place = {name: classes.index(target) for name, target in shared.items()}
    if data_set.palette is not None:
        if len(stored) < 3:
            raise InputError(f"{mask} has {len(stored)} bands; a picture of {data_set.title} has three. Check masks")
        own = palette_classes(stored[:3], list(data_set.palette.values()), data_set.tolerance)
        table = np.full(256, IGNORE, np.uint8)
        for number, name in enumerate(data_set.palette):
            table[number] = place.get(name, IGNORE)
        return table[own], int((own == IGNORE).sum())
    assert data_set.ids is not None
    if stored.dtype.kind not in "uif" or (stored != stored[0]).any():
        raise InputError(f"{mask} is no mask of ids: {len(stored)} unequal bands, or {stored.dtype}. Check masks")
    result, known = np.full(stored[0].shape, IGNORE, np.uint8), np.isin(stored[0], data_set.ignore)
    for name, ids in data_set.ids.items():
        of_class = np.isin(stored[0], ids)
        known |= of_class
        result[of_class] = place.get(name, IGNORE)
    if not known.all():
        odd = ", ".join(map(str, np.unique(stored[0][~known])[:8]))
        raise InputError(f"{mask}: the ids {odd} are no class of {data_set.title}. Check masks, or give codes")
    return result, 0


def _check_size(image: Path, mask: Path, size: tuple[int, ...]) -> None:
    """InputError: an image that is no raster, or of another size than its mask."""
    with rasterio_faults(image), rasterio.open(image) as opened:
        if (opened.height, opened.width) != tuple(size):
            raise InputError(
                f"{mask} is {size[1]} x {size[0]} px, {image} is {opened.width} x {opened.height}. Check masks"
            )


def _rows(data_set: DataSet, folder: Path) -> list[tuple[str | None, Path, Path]]:
    """(split or None, image, mask), by name. InputError: see `build`."""
    if not folder.is_dir():
        raise InputError(f"{data_set.title} is not at {folder}. Get it from {data_set.get} and name its folder")
    layout = data_set.layout
    assert layout.images is not None
    assert layout.masks is not None
    if layout.splits is None:
        try:
            images = [(None, image) for image in sorted(folder.glob(layout.images))]
        except (ValueError, NotImplementedError) as fault:
            raise InputError(f"images {layout.images!r}: {fault}. Give a pattern inside of {folder}") from None
    else:
        images = [
            (split, folder / Path(layout.images).parent / name)
            for split, file in layout.splits.items()
            for name in _names(folder / file, data_set)
        ]
    if not images:
        raise InputError(
            f"{folder} has no {layout.images} of {data_set.title} (layout: {layout.source}). Get it from "
            f"{data_set.get}, or say with images where they lie"
        )
    rows = []
    for split, image in images:
        mask = folder / _mask_path(image.relative_to(folder).as_posix(), layout.masks)
        for file in (image, mask):
            if not file.is_file():
                raise InputError(f"{data_set.title}: {file} is missing (layout: {layout.source}). Restore it")
        rows.append((split, image.resolve(), mask))
    return rows


def _mask_path(image: str, masks: Mapping[str, str]) -> str:
    """Path of the mask of an image, both relative to the data set. InputError: a part that is not in the path."""
    path = image
    for old, new in masks.items():
        if old not in path:
            raise InputError(f"{image} has no {old!r} in its path to be put {new!r} for. Mend masks")
        path = path.replace(old, new)
    if path == image:
        raise InputError(f"the mask of {image} would be the image itself. Mend masks")
    return path


def _names(file: Path, data_set: DataSet) -> list[str]:
    """First column of a list of the data set."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return [row[0] for row in csv.reader(stream) if row]
    except OSError as fault:
        raise InputError(
            f"{data_set.title}: its list {file} cannot be read ({fault.strerror}). Get it from {data_set.get}"
        ) from None


def _write_lists(
    rows: Sequence[tuple[str | None, Path, Path]], place: Place, data_set: DataSet, out: Path, name: str
) -> dict[str, Path]:
    """train and val in one list, any other split of the data set in one of its own."""
    pattern = group_pattern(data_set.group)
    groups = [group_of(image.stem, pattern) for _, image, _ in rows]
    if data_set.layout.splits is not None or place.role == "target":
        hashed = ["val"] * len(rows)
    else:
        hashed = split_by_hash(groups, place.val_fraction)
    by_list: dict[str, list[tuple[str, str, str, str]]] = {}
    for (own, image, mask), group, drawn in zip(rows, groups, hashed, strict=True):
        split = own or drawn
        key = name if split in SPLITS else f"{name}_{split}"
        row = (str(image), str(mask.relative_to(out)), split if split in SPLITS else "val", group)
        by_list.setdefault(key, []).append(row)
    found = {}
    for key, listed in by_list.items():
        found[key] = out / f"{key}.csv"
        with found[key].open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["image", "mask", "split", "group"])
            writer.writerows(listed)
    return found


def _write_mask(file: Path, ids: np.ndarray) -> None:
    profile = {"driver": "PNG", "count": 1, "height": ids.shape[0], "width": ids.shape[1], "dtype": "uint8"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(file, "w", **profile) as opened:
                opened.write(ids, 1)
    except (RasterioError, OSError) as fault:
        raise InputError(f"{file} cannot be written ({fault}). Choose a writable folder with room") from None


def _read_codes(file: Path, classes: Sequence[str], coloured: bool) -> dict[str, tuple[int, ...]]:
    """InputError: no such JSON, a class that the data set does not have, or an id of two classes."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        codes = {str(name): tuple(map(index, numbers)) for name, numbers in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as fault:
        raise InputError(f"{file} is no JSON of {{class: [numbers]}} ({fault}). Mend it") from None
    odd = [name for name in codes if name not in classes]
    if odd or not codes or not all(codes.values()):
        raise InputError(f"{file}: {odd[0] if odd else 'an empty entry'!r}; classes are {', '.join(classes)}. Mend it")
    if not coloured:
        every = [number for numbers in codes.values() for number in numbers]
        twice = [number for number in every if every.count(number) > 1]
        if twice:
            raise InputError(f"{file}: the id {twice[0]} stands there twice, and a pixel has one class. Mend it")
    return codes

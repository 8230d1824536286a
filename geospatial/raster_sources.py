"""Which rasters belong to which masks: two folders with the same names, or a list in a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from data_engine.remote import is_remote
from data_engine.splits import SPLITS, group_pattern, groups_of, split_by_hash
from geospatial.raster import RasterSettings
from mmzoo.errors import InputError, suggestion

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png")
LIST_COLUMNS = ("image", "mask", "split", "group")


@dataclass(frozen=True)
class RasterSource:
    """One set of rasters with labels.

    images: folder of rasters, or a CSV file with the columns image, mask and, if wanted, split (train, val) and group;
    its paths are relative to it. masks: folder with a class mask of the same name for each raster. name: in sample ids
    and the log. role: "source" is trained on and validated on; "target" is another domain, only ever validated on.
    split: "train" or "val" for all of it (default: the list, else by hash). group: regex whose first group names what
    must stay in one split (all tiles of a scene). weight: of its samples in the loss, e.g. of pseudo-labels.
    remap: {id in the masks: id of a class}. bands, domain, nodata, complex_as: see geospatial.raster. confidence,
    agreement: folders of rasters in per cent, as `mmzoo pseudo-label` writes them; pixels below min_confidence or
    min_agreement (0 to 1) are not trained on.
    """

    images: str
    masks: str | None = None
    name: str = "rasters"
    role: Literal["source", "target"] = "source"
    split: Literal["train", "val"] | None = None
    group: str | None = None
    weight: float = 1.0
    remap: dict[int, int] | None = None
    bands: list[int] | None = None
    domain: str | None = None
    nodata: float | Literal["file"] | None = "file"
    complex_as: Literal["amplitude", "intensity"] | None = None
    confidence: str | None = None
    min_confidence: float | None = None
    agreement: str | None = None
    min_agreement: float | None = None

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise InputError(f"source {self.name!r}: weight must not be negative: {self.weight}")
        if self.role == "target" and self.split == "train":
            raise InputError(
                f"source {self.name!r} is a target, which is never trained on. Set role: source, or no split"
            )
        for kind in ("confidence", "agreement"):
            least = getattr(self, f"min_{kind}")
            if (least is None) != (getattr(self, kind) is None):
                raise InputError(f"source {self.name!r}: give both {kind} (a folder) and min_{kind}, or neither")
            if least is not None and not 0 <= least <= 1:
                raise InputError(f"source {self.name!r}: min_{kind} must be in 0 to 1, not {least}")

    @property
    def settings(self) -> RasterSettings:
        """How its rasters are read."""
        bands = None if self.bands is None else tuple(self.bands)
        return RasterSettings(bands, self.domain, self.nodata, self.complex_as)


def least_percent(share: float) -> float:
    """A share of 0 to 1 in per cent, as rasters hold it: 100 * 0.55 is a little above 55."""
    return round(100 * share, 6)


class Pair(NamedTuple):
    """A raster and its mask. `filters`: (raster in per cent, least share 0 to 1) that pixels must reach."""

    key: str
    image: Path
    mask: Path
    split: str
    filters: tuple[tuple[Path, float], ...]


def find_pairs(source: RasterSource, val_fraction: float) -> list[Pair]:
    """All pairs of a source, by key. InputError: nothing there, a file without its partner, an unknown column."""
    for place in (source.images, source.masks):
        if is_remote(place or ""):
            raise InputError(
                f"source {source.name!r}: {place} is a URL, and rasters are read window by window from files. "
                f"Download them, and name the folder"
            )
    where = Path(source.images)
    if where.suffix.lower() == ".csv":
        rows = _listed(where)
    elif where.is_dir():
        rows = _in_folders(where, source)
    else:
        raise InputError(
            f"source {source.name!r}: {where} is neither a folder nor a .csv list. "
            f"Set data.init_args.sources; paths are relative to {Path.cwd()}"
        )
    if not rows:
        raise InputError(f"source {source.name!r}: no raster in {where}. Looked for {', '.join(SUFFIXES)}")
    splits = _splits(source, rows, val_fraction)
    return [
        Pair(row["key"], Path(row["image"]), Path(row["mask"]), split, _filters(source, row["key"]))
        for row, split in zip(rows, splits, strict=True)
    ]


def rasters_in(folder: Path) -> dict[str, Path]:
    """{path without suffix, relative to the folder: file}. InputError: two files that differ in the suffix only."""
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            continue
        key = file.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise InputError(f"{file} and {found[key].name} have the same name. Keep one of them")
        found[key] = file
    return found


def _in_folders(folder: Path, source: RasterSource) -> list[dict[str, str]]:
    if source.masks is None:
        raise InputError(f"source {source.name!r}: masks is missing: the folder of masks for the rasters in {folder}")
    images, masks = rasters_in(folder), rasters_in(Path(source.masks))
    for one, other, kind, place in ((images, masks, "mask", source.masks), (masks, images, "raster", folder)):
        alone = [key for key in one if key not in other]
        if alone:
            raise InputError(
                f"source {source.name!r}: {len(alone)} files have no {kind} in {place}, the first is {one[alone[0]]}."
                f"{suggestion(alone[0], other)} Add it, or list the pairs in a CSV file"
            )
    return [{"key": key, "image": str(images[key]), "mask": str(masks[key])} for key in images]


def _listed(file: Path) -> list[dict[str, str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise InputError(
            f"the list {file} cannot be read ({fault}). Give a CSV file with the columns image and mask"
        ) from None
    columns = list(rows[0]) if rows else ["image", "mask"]
    for name in columns:
        if name not in LIST_COLUMNS:
            raise InputError(f"{file} has a column {name!r}.{suggestion(str(name), LIST_COLUMNS)}")
    if not {"image", "mask"} <= set(columns):
        raise InputError(f"{file} needs the columns image and mask; it has {', '.join(columns)}")
    seen: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        if not (row["image"] and row["mask"]):
            raise InputError(f"{file}, line {number}: image or mask is empty. Name both, or remove the line")
        if not Path(row["image"]).name:
            raise InputError(f"{file}, line {number}: {row['image']!r} is no file. Name a raster")
        row["key"] = Path(row["image"]).with_suffix("").as_posix().replace("../", "")
        if row["key"] in seen:
            raise InputError(f"{file}, line {number}: {row['image']} {_twice(file.parent, row, seen[row['key']])}")
        seen[row["key"]] = row["image"]
        for kind in ("image", "mask"):
            row[kind] = str(file.parent / row[kind])
        if row.get("split") and row["split"] not in SPLITS:
            raise InputError(f"{file}, line {number}: split {row['split']!r} is not one of: {', '.join(SPLITS)}")
    return rows


def _twice(folder: Path, row: dict[str, str], before: str) -> str:
    """What is wrong with two rows of one key: one file twice, or two files that `../` alone tells apart."""
    if (folder / before).resolve() == (folder / row["image"]).resolve():
        return "is listed twice. Remove one line"
    return f"and {before} are two files of one name, {row['key']}. Rename a folder, or make them two sources"


def _splits(source: RasterSource, rows: Sequence[dict[str, str]], val_fraction: float) -> list[str]:
    if source.role == "target":
        return ["val"] * len(rows)
    if source.split is not None:
        return [source.split] * len(rows)
    if any(row.get("split") for row in rows):
        missing = [row["image"] for row in rows if not row.get("split")]
        if missing:
            raise InputError(f"source {source.name!r}: {missing[0]} has no split in the list, others have. Fill it in")
        return [row["split"] for row in rows]
    pattern = group_pattern(source.group)
    found = groups_of([row["key"] for row in rows], pattern, has_suffix=False)
    groups = [row.get("group") or group for row, group in zip(rows, found, strict=True)]
    return split_by_hash(groups, val_fraction)


def _filters(source: RasterSource, key: str) -> tuple[tuple[Path, float], ...]:
    found = []
    for kind in ("confidence", "agreement"):
        folder, least = getattr(source, kind), getattr(source, f"min_{kind}")
        if folder is not None:
            path = Path(folder) / f"{key}.tif"
            if not path.is_file():
                raise InputError(f"source {source.name!r}: there is no {kind} raster {path}. See mmzoo pseudo-label")
            found.append((path, float(least)))
    return tuple(found)

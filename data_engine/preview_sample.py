"""A sample as the preview page shows it: its pictures and rasters with what is marked in them, its words."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from data_engine.raster_picture import first_nodata, raster_picture
from data_engine.records import Sample

SHOWN_SIDE = 480  # px of a picture on the page
PICTURES, CLASSES = 6, 16  # shown of a sample, listed of a mask
COLOURS = {"box": "#1f6fd6", "quad": "#e07a00", "polygon": "#1c9a4b"}
MASK_OPACITY = 120  # of 255
MASK_COLOURS = np.random.default_rng(0).integers(40, 256, (256, 4), np.uint8)  # of class 0, clear, and of 1 to 255
MASK_COLOURS[:, 3], MASK_COLOURS[0, 3] = MASK_OPACITY, 0


@dataclass(frozen=True, slots=True)
class Outline:
    """A closed line over a picture: `points` as SVG has them, in px of the picture; dashed where it does not count."""

    points: str
    colour: str
    label: str
    ignore: bool = False


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture on the page. url, mask: data URLs; width and height in px; classes: (colour, words) of the mask."""

    url: str
    width: int
    height: int
    caption: str = ""
    outlines: tuple[Outline, ...] = ()
    labels: str = ""
    mask: str = ""
    classes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample on the page. turns: (role, text); more: how many pictures are left out."""

    key: str
    pictures: tuple[ShownPicture, ...] = ()
    turns: tuple[tuple[str, str], ...] = ()
    more: int = 0
    broken: str = ""


def shown(sample: Sample) -> Shown:
    """What the page shows of a sample."""
    meta = sample.meta
    turns = [(str(turn.get("role", "")), str(turn.get("text", ""))) for turn in meta.get("conversation") or ()]
    turns += [(name, str(meta[name])) for name in ("caption", "text") if isinstance(meta.get(name), str)]
    images = [sample.fields[name] for name in _numbered("image", sample.fields)]
    rasters = [sample.fields[name] for name in _numbered("raster", sample.fields)]
    mask = sample.fields.get("mask")
    if mask is None and not images:
        mask = next((raster[0] for raster in rasters[1:] if _is_class_map(raster)), None)
    pictures = [_picture(image, _regions(meta, number)) for number, image in enumerate(images)]
    pictures += _rasters(rasters, meta)
    if pictures and mask is not None:
        pictures[0] = _masked(pictures[0], mask, meta)
    return Shown(sample.key, tuple(pictures[:PICTURES]), tuple(turns), max(0, len(pictures) - PICTURES))


def outlines(region: Mapping[str, Any]) -> list[Outline]:
    """The lines of a region of a sample's json: its box (x1, y1, x2, y2), its quad, its polygons."""
    label, ignore = str(region.get("label", "")), bool(region.get("ignore"))
    found = []
    if box := region.get("box"):
        left, top, right, bottom = box
        found.append(("box", [(left, top), (right, top), (right, bottom), (left, bottom)]))
    if quad := region.get("quad"):
        found.append(("quad", quad))
    found += [("polygon", polygon) for polygon in region.get("polygons") or ()]
    return [Outline(_points(corners), COLOURS[shape], label, ignore) for shape, corners in found]


def _numbered(name: str, fields: Mapping[str, Any]) -> list[str]:
    """image, image1, image2, ... as far as they are there."""
    names = (f"{name}{number or ''}" for number in range(len(fields)))
    return [each for each in names if each in fields]


def _regions(meta: Mapping[str, Any], number: int) -> list[Mapping[str, Any]]:
    return [region for region in meta.get("regions") or () if (region.get("image") or 0) == number]


def _picture(image: np.ndarray, regions: Sequence[Mapping[str, Any]], caption: str = "") -> ShownPicture:
    height, width = image.shape[:2]
    labels = Counter(str(region.get("label", "")) for region in regions)
    return ShownPicture(
        url=_data_url(Image.fromarray(image), "JPEG"),
        width=width,
        height=height,
        caption=caption,
        outlines=tuple(outline for region in regions for outline in outlines(region)),
        labels=", ".join(f"{label} {count}" for label, count in labels.items()),
    )


def _rasters(rasters: Sequence[np.ndarray], meta: Mapping[str, Any]) -> list[ShownPicture]:
    """One picture a raster, stretched to 8 bits, with what its file says of it."""
    roles = (meta.get("meta") or {}).get("roles") or ()
    pictures = []
    for number, (raster, entry) in enumerate(zip(rasters, meta.get("rasters") or (), strict=True)):
        facts = [roles[number] if number < len(roles) else f"raster {number}"]
        facts += [f"{len(raster)} x {raster.dtype}", entry.get("crs") or "no CRS"]
        nodata = first_nodata({"rasters": [entry]})
        pictures.append(_picture(raster_picture(raster, nodata), (), ", ".join(map(str, facts))))
    return pictures


def _is_class_map(raster: np.ndarray) -> bool:
    """One band of few integers: a mask beside the scene."""
    return len(raster) == 1 and raster.dtype.kind in "iu" and len(np.unique(raster)) <= CLASSES


def _masked(picture: ShownPicture, mask: np.ndarray, meta: Mapping[str, Any]) -> ShownPicture:
    """The picture under a mask, integer (H, W), with the share of each class. 0 is clear."""
    names = (meta.get("meta") or {}).get("classes") or {}
    values, counts = np.unique(mask, return_counts=True)
    shares = list(zip(values.tolist(), counts.tolist(), strict=True))
    classes = [
        (_css(value), f"{value} {names.get(str(value), '')} {count / mask.size:.1%}".replace("  ", " "))
        for value, count in shares[:CLASSES]
    ]
    if len(shares) > CLASSES:
        classes.append((_css(0), f"and {len(shares) - CLASSES} more"))
    return replace(
        picture, mask=_data_url(Image.fromarray(MASK_COLOURS[_entry(mask)], "RGBA"), "PNG"), classes=tuple(classes)
    )


def _entry(mask: np.ndarray) -> np.ndarray:
    """Rows of MASK_COLOURS."""
    return np.where(mask == 0, 0, 1 + (mask.astype(np.int64) - 1) % 255)


def _css(value: int) -> str:
    red, green, blue, opacity = MASK_COLOURS[_entry(np.array(value))].tolist()
    return f"rgb({red},{green},{blue})" if opacity else "transparent"


def _points(corners: Sequence[Sequence[float]]) -> str:
    return " ".join(f"{float(x):g},{float(y):g}" for x, y in corners)


def _data_url(picture: Image.Image, form: str) -> str:
    resampling = Image.Resampling.NEAREST if form == "PNG" else Image.Resampling.BICUBIC
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE), resampling)
    stream = io.BytesIO()
    picture.save(stream, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"

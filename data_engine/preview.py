"""`mmzoo data preview SHARDS -o PAGE.html`: one page that opens anywhere, with no network and no script.

Composition, histograms, and samples spread over the shards: pictures with boxes (blue), oriented boxes (orange),
polygons (green) and masks, conversations below them. All text is escaped; the page depends on the shards alone.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from data_engine.broken_samples import BrokenSampleError
from data_engine.decode import quiet_pillow
from data_engine.index import ShardIndex
from data_engine.reader import ShardReader
from data_engine.records import Sample
from data_engine.remote import open_index
from data_engine.stats import statistics
from mmzoo.errors import EXIT_OK, CommandParser, InputError

SHOWN_SIDE = 480  # px of a picture on the page
BAR = 110  # px
COLOURS = {"box": "#1f6fd6", "quad": "#e07a00", "polygon": "#1c9a4b"}
MASK_OPACITY = 120  # of 255


@dataclass(frozen=True, slots=True)
class Outline:
    """A closed line over a picture: `points` as SVG has them, in px of the picture."""

    points: str
    colour: str
    label: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample on the page. picture, mask: data URLs; turns: (role, text)."""

    key: str
    picture: str = ""
    mask: str = ""
    width: int = 0
    height: int = 0
    outlines: tuple[Outline, ...] = ()
    labels: str = ""
    turns: tuple[tuple[str, str], ...] = ()
    broken: str = ""


def shown(sample: Sample) -> Shown:
    """What the page shows of a sample: its first picture and the regions in it, its words."""
    meta = sample.meta
    regions = [region for region in meta.get("regions") or () if not region.get("image")]
    turns = [(str(turn.get("role", "")), str(turn.get("text", ""))) for turn in meta.get("conversation") or ()]
    turns += [(name, str(meta[name])) for name in ("caption", "text") if isinstance(meta.get(name), str)]
    image, mask = sample.fields.get("image"), sample.fields.get("mask")
    if image is None:
        return Shown(sample.key, turns=tuple(turns))
    labels = Counter(str(region.get("label", "")) for region in regions)
    return Shown(
        key=sample.key,
        picture=_data_url(Image.fromarray(image), "JPEG"),
        mask="" if mask is None else _data_url(_coloured(mask), "PNG"),
        width=image.shape[1],
        height=image.shape[0],
        outlines=tuple(outline for region in regions for outline in outlines(region)),
        labels=", ".join(f"{label} {count}" for label, count in labels.items()),
        turns=tuple(turns),
    )


def outlines(region: dict[str, Any]) -> list[Outline]:
    """The lines of a region of a sample's json: its box (x1, y1, x2, y2), its quad, its polygons."""
    label = str(region.get("label", ""))
    found = []
    if box := region.get("box"):
        left, top, right, bottom = box
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        found.append(Outline(_points(corners), COLOURS["box"], label))
    if quad := region.get("quad"):
        found.append(Outline(_points(quad), COLOURS["quad"], label))
    found += [Outline(_points(polygon), COLOURS["polygon"], label) for polygon in region.get("polygons") or ()]
    return found


def page(index: ShardIndex, count: int) -> str:
    """The page as text, with `count` samples, evenly spread."""
    found = statistics(index)
    reader = ShardReader(index)
    rows = np.unique(np.linspace(0, index.count - 1, min(count, index.count)).astype(int)).tolist()
    facts = [("samples", found["samples"]), ("shards", found["shards"]), ("bytes", found["bytes"])]
    for name in ("splits", "licences", "regions"):
        if found[name]:
            facts.append((name, ", ".join(f"{key} {value}" for key, value in found[name].items())))
    environment = Environment(
        loader=PackageLoader("data_engine"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("preview.html.jinja").render(
        title=f"{index.source}: {index.count} samples",
        facts=facts,
        charts=[(name.replace("_", " "), _bars(values["histogram"])) for name, values in found["histograms"].items()],
        samples=[_read(reader, row) for row in rows],
    )


def _read(reader: ShardReader, row: int) -> Shown:
    try:
        return shown(reader.sample(row))
    except BrokenSampleError as fault:
        return Shown(reader.key(row), broken=fault.fault.reason)


def _bars(histogram: dict[str, int]) -> list[tuple[str, int, int]]:
    most = max(histogram.values())
    return [(span, count, -(-BAR * count // most)) for span, count in histogram.items()]


def _points(corners: Sequence[Sequence[float]]) -> str:
    return " ".join(f"{float(x):g},{float(y):g}" for x, y in corners)


def _coloured(mask: np.ndarray) -> Image.Image:
    """A class mask, integer (H, W), as a translucent picture: 0 is clear, each other class has a colour of its own."""
    colours = np.random.default_rng(0).integers(40, 256, (256, 4), np.uint8)
    colours[:, 3], colours[0, 3] = MASK_OPACITY, 0
    return Image.fromarray(colours[np.where(mask == 0, 0, 1 + (mask - 1) % 255)], "RGBA")


def _data_url(picture: Image.Image, form: str) -> str:
    resampling = Image.Resampling.NEAREST if form == "PNG" else Image.Resampling.BICUBIC
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE), resampling)
    stream = io.BytesIO()
    picture.save(stream, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def main(argv: Sequence[str], prog: str) -> int:
    """`mmzoo data preview`."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("shards", help="shard folder, or its URL")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PAGE.html", help="file to write")
    parser.add_argument("--samples", type=int, default=24, help="how many samples to show (default 24)")
    given = parser.parse_args(argv)
    if given.samples < 1:
        raise InputError(f"--samples must be at least 1, not {given.samples}")
    with quiet_pillow():
        text = page(open_index(given.shards), given.samples)
    building = given.output.with_name(f".{given.output.name}.{os.getpid()}.partial")
    try:
        building.write_text(text, encoding="utf-8")
        building.replace(given.output)
    except OSError as fault:
        building.unlink(missing_ok=True)
        raise InputError(f"cannot write {given.output}: {fault.strerror}. Name another file") from None
    sys.stderr.write(f"{given.output}\n")
    return EXIT_OK

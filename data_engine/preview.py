"""`mmzoo data preview SHARDS -o PAGE.html`: one page that opens anywhere, with no network and no script.

Composition, histograms, and samples spread over the shards: pictures and rasters with boxes (blue), oriented boxes
(orange), polygons (green) and masks, words below them. All text is escaped; the page depends on the shards alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from data_engine.broken_samples import BrokenSampleError
from data_engine.decode import quiet_pillow
from data_engine.index import ShardIndex
from data_engine.preview_sample import COLOURS, Shown, shown
from data_engine.reader import ShardReader
from data_engine.remote import open_index
from data_engine.stats import statistics
from mmzoo.errors import EXIT_OK, CommandParser, InputError

BAR = 110  # px


def page(index: ShardIndex, count: int) -> str:
    """The page as text, with `count` samples, evenly spread."""
    found = statistics(index)
    reader = ShardReader(index)
    rows = np.unique(np.linspace(0, index.count - 1, min(count, index.count)).astype(int)).tolist()
    facts = [("samples", found["samples"]), ("shards", found["shards"]), ("bytes", found["bytes"])]
    for name in ("sources", "splits", "licences", "regions"):
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
        colours=COLOURS,
    )


def _read(reader: ShardReader, row: int) -> Shown:
    try:
        return shown(reader.sample(row))
    except BrokenSampleError as fault:
        return Shown(reader.key(row), broken=fault.fault.reason)


def _bars(histogram: dict[str, int]) -> list[tuple[str, int, int]]:
    most = max(histogram.values())
    return [(span, count, -(-BAR * count // most)) for span, count in histogram.items()]


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

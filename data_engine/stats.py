"""`mmzoo data stats SHARDS`: how many, how large, how long: counts and histograms of a shard folder.

Sizes come from the index; text lengths, labels and licences from the json of every sample. Nothing is decoded.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_engine.index import ShardIndex
from data_engine.look import size_histogram
from data_engine.progress import tracked
from data_engine.quality.texts import sample_text
from data_engine.reader import ShardReader
from data_engine.remote import open_index
from mmzoo.errors import EXIT_OK, CommandParser

BAR = 40  # characters
LISTED = 20  # names of a count; the rest is summed


def statistics(index: ShardIndex) -> dict[str, Any]:
    """Counts and histograms as JSON values. `..._px`: pixels a picture; `..._bytes`: bytes a member; characters."""
    reader = ShardReader(index)
    lengths, sources, licences, regions = [], Counter(), Counter(), Counter()
    for row in tracked(range(index.count), "reading", index.count):
        meta = reader.meta(row)
        lengths.append(len(sample_text(meta)))
        sources[str(meta.get("source") or index.source)] += 1
        licences[str(meta.get("license") or "not stated")] += 1
        regions.update(str(region.get("label", "")) for region in meta.get("regions") or ())
    pixels = index.column("width").astype(np.int64) * index.column("height")
    histograms = {"picture_px": pixels}
    for column, field in enumerate(index.fields):
        histograms[f"{field}_bytes"] = np.asarray(index.column("size")[:, column])
    histograms["text_characters"] = np.array(lengths, np.int64)
    return {
        "shards": len(index.shards),
        "samples": index.count,
        "bytes": sum(shard["bytes"] for shard in index.content["shards"]),
        "sources": _counted(sources),
        "splits": {split: len(index.split_rows(split)) for split in index.splits},
        "licences": _counted(licences),
        "regions": _counted(regions),
        "histograms": {name: summary(values) for name, values in histograms.items() if (values > 0).any()},
    }


def summary(values: np.ndarray) -> dict[str, Any]:
    """Of the values above 0: how many, sum, least, median, 95th percentile, most, and counts between powers of two."""
    held = values[values > 0]
    middle, high = np.percentile(held, [50, 95], method="lower").tolist()
    return {
        "count": len(held),
        "sum": int(held.sum()),
        "min": int(held.min()),
        "median": int(middle),
        "p95": int(high),
        "max": int(held.max()),
        "histogram": size_histogram(held),
    }


def _counted(names: Counter[str]) -> dict[str, int]:
    """The most frequent names; what is left over under "others"."""
    listed = dict(sorted(names.items(), key=lambda entry: (-entry[1], entry[0]))[:LISTED])
    others = names.total() - sum(listed.values())
    return {**listed, "others": others} if others else listed


def as_text(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"{name:<10}{found[name]}" for name in ("samples", "shards", "bytes")]
    for name in ("sources", "splits", "licences", "regions"):
        if found[name]:
            lines.append(f"{name:<10}" + ", ".join(f"{key} {count}" for key, count in found[name].items()))
    for name, values in found["histograms"].items():
        facts = ", ".join(f"{fact} {values[fact]}" for fact in ("min", "median", "p95", "max", "sum"))
        lines += ["", f"{name.replace('_', ' ')}: {facts}"]
        most = max(values["histogram"].values())
        width = max(map(len, values["histogram"]))
        for span, count in values["histogram"].items():
            lines.append(f"  {span:>{width}}  {count:>9}  {'#' * -(-BAR * count // most)}")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str], prog: str) -> int:
    """`mmzoo data stats`."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("shards", help="shard folder, or its URL")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    given = parser.parse_args(argv)
    found = statistics(open_index(given.shards))
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if given.json else as_text(found))
    return EXIT_OK

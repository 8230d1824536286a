"""The card of a built data set: counts, licences, fields, sizes and histograms, as JSON and as a page of Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_engine.look import printable, size_histogram

LABELS_SHOWN = 50


def make_card(
    rows: Sequence[Mapping[str, Any]], splits: Sequence[str], rejected: Sequence[Mapping[str, str]], shards: int
) -> dict[str, Any]:
    """The card as JSON values. Sides in px, text in characters, sizes in bytes."""
    names = sorted({row["source"] for row in rows})
    labels = Counter()
    for row in rows:
        labels.update(row["labels"])
    return {
        "samples": len(rows),
        "shards": shards,
        "bytes": sum(row["bytes"] for row in rows),
        "rejected": len(rejected),
        "splits": dict(sorted(Counter(splits).items())),
        "fields": _counts(name for row in rows for name in row["fields"]),
        "formats": _counts(name for row in rows for name in row["formats"]),
        "licenses": _counts(row["license"] or "not stated" for row in rows),
        "sources": {name: _source(name, rows, splits, rejected) for name in names},
        "longer_side_px": _histogram([max(row["extent"]) for row in rows if row["extent"][0]]),
        "text_characters": _histogram([row["text"] for row in rows]),
        "images_per_sample": _counts(str(len(row["sizes"])) for row in rows),
        "regions_per_sample": _histogram([sum(row["labels"].values()) for row in rows]),
        "labels": dict(sorted(labels.most_common(LABELS_SHOWN), key=lambda item: (-item[1], item[0]))),
        "label_count": len(labels),
    }


def _source(
    name: str, rows: Sequence[Mapping[str, Any]], splits: Sequence[str], rejected: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    mine = [(row, split) for row, split in zip(rows, splits, strict=True) if row["source"] == name]
    return {
        "samples": len(mine),
        "splits": dict(sorted(Counter(split for _, split in mine).items())),
        "licenses": _counts(row["license"] or "not stated" for row, _ in mine),
        "fields": _counts(field for row, _ in mine for field in row["fields"]),
        "bytes": sum(row["bytes"] for row, _ in mine),
        "rejected": sum(item["source"] == name for item in rejected),
    }


def _counts(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _histogram(values: Sequence[int]) -> dict[str, int]:
    """By ranges between powers of two; none has a range of its own."""
    array = np.array(values, np.int64)
    none = int((array == 0).sum())
    return {**({"0": none} if none else {}), **size_histogram(array[array > 0])}


def card_page(card: Mapping[str, Any], title: str) -> str:
    """The card as Markdown."""
    lines = [f"# {title}", ""]
    lines.append(
        f"{card['samples']} samples in {card['shards']} shards, {card['bytes'] / 1e6:.1f} MB; "
        f"{card['rejected']} rejected. Splits: {inline(card['splits'])}."
    )
    lines += _decisions(card)
    lines += ["", "| source | samples | splits | fields | licence | MB | rejected |", "|---|---|---|---|---|---|---|"]
    for name, entry in card["sources"].items():
        cells = [name, entry["samples"], *(inline(entry[part]) for part in ("splits", "fields", "licenses"))]
        cells += [f"{entry['bytes'] / 1e6:.1f}", entry["rejected"]]
        lines.append("| " + " | ".join(printable(str(cell)).replace("|", "\\|") for cell in cells) + " |")
    titles = {
        "longer_side_px": "Longer side of the first image or raster, px",
        "text_characters": "Text of a sample, characters, with <image> placeholders",
        "images_per_sample": "Images of a sample",
        "regions_per_sample": "Objects of a sample",
        "labels": f"Objects by label ({card['label_count']} labels, the first {LABELS_SHOWN})",
    }
    for name, title_of in titles.items():
        if card[name]:
            lines += ["", f"## {title_of}", "", *_bars(card[name])]
    return "\n".join(lines) + "\n"


def _decisions(card: Mapping[str, Any]) -> list[str]:
    """What was left out, changed or repaired, a line each, where the card counts it."""
    lines = [f"Left out: {inline(card['left_out'])}."] if "left_out" in card else []
    lines += [f"Transform {name}: {inline(counts)}." for name, counts in card.get("transforms", {}).items()]
    lines += [f"Repaired: {inline(card['repaired'])}."] if "repaired" in card else []
    return [line for each in lines for line in ("", each)]


def inline(counts: Mapping[str, int]) -> str:
    """Counts on one line."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _bars(counts: Mapping[str, int]) -> list[str]:
    counts = {printable(name): count for name, count in counts.items()}
    width, most = max(map(len, counts)), max(counts.values())
    return [f"    {name:>{width}}  {count:>9}  {'#' * -(-40 * count // most)}" for name, count in counts.items()]

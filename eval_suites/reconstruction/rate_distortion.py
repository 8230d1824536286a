"""The rate-distortion curve as rows of a table, for reading and for plotting: the tokenizer's prefixes and the codecs.

A row: method ("tokenizer", "jpeg", "jpeg_bare", ...), levels (the prefix whose bits the codecs were given), bpp and for
the tokenizer entropy_bpp in bits a px, psnr (dB) and ssim with the ends of their intervals, over_budget: the share of
images that the codec could not make so small, which then had more bits. Absent figures are null, infinite ones "inf".
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from eval_suites.reconstruction.kinds import COUNTINGS
from eval_suites.reconstruction.settings import Settings
from eval_suites.record import Metric

COLUMNS = ("method", "levels", "bpp", "entropy_bpp", "over_budget")
DISTORTIONS = ("psnr", "ssim")


def rate_distortion(metrics: Sequence[Metric], settings: Settings) -> list[dict[str, Any]]:
    """The table, method by method, in order of rising rate."""
    by_name = {metric.name: metric for metric in metrics}
    methods = {"tokenizer": ""} | {f"{name}{end}": f"{name}{end}_" for name in settings.codecs for end in COUNTINGS}
    return [_row(by_name, method, prefix, level) for method, prefix in methods.items() for level in settings.levels]


def curve_csv(curve: Sequence[Mapping[str, Any]]) -> str:
    """The table as CSV with a header line; what is null there is empty here."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(curve[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(curve)
    return stream.getvalue()


def _row(by_name: Mapping[str, Metric], method: str, prefix: str, level: int) -> dict[str, Any]:
    def value(name: str) -> Any:
        metric = by_name.get(f"{prefix}{name}@{level}")
        return None if metric is None else _plain(metric.value)

    row: dict[str, Any] = {"method": method, "levels": level, **{name: value(name) for name in COLUMNS[2:]}}
    for name in DISTORTIONS:
        metric = by_name[f"{prefix}{name}@{level}"]
        row |= {name: _plain(metric.value), f"{name}_low": metric.low, f"{name}_high": metric.high}
    return row


def _plain(value: float | None) -> float | str | None:
    return "inf" if value is not None and math.isinf(value) else value

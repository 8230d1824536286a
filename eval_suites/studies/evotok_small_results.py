"""The study's rows of all folds as tables, a plot and one JSON.

Every image is held out in exactly one fold, so a figure is a mean over images, with a bootstrap interval by image, and
beside it the lowest and the highest mean of a fold: folds differ in seed, initialisation and training images.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval_suites.statistics import Interval, bootstrap_mean

Rows = list[dict[str, Any]]
PIXEL_FIGURES = ("psnr", "ssim", "semantic_cosine")


@dataclass(frozen=True)
class Figure:
    """A mean over held-out images, and the means of the folds."""

    interval: Interval
    folds: tuple[float, ...]

    def text(self, digits: int, factor: float = 1.0) -> str:
        """Such as "18.31 [18.10, 18.53], folds 18.0 to 18.6"."""
        low, high = (np.nan if end is None else end * factor for end in (self.interval.low, self.interval.high))
        spread = f"folds {min(self.folds) * factor:.{digits}f} to {max(self.folds) * factor:.{digits}f}"
        return f"{self.interval.mean * factor:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}], {spread}"


def read_rows(folders: Sequence[Path], name: str) -> Rows:
    """The rows of a file of every fold, with the fold's number."""
    return [
        {**json.loads(line), "fold": fold}
        for fold, folder in enumerate(folders)
        for line in (folder / name).read_text(encoding="utf-8").splitlines()
    ]


def figure(rows: Iterable[Mapping[str, Any]], column: str) -> Figure:
    """The mean of a column over images. ValueError: an image that counts twice."""
    rows = list(rows)
    paths = [row["path"] for row in rows]
    if len(set(paths)) != len(paths):
        raise ValueError("an image is held out in two folds, or its rows were mixed with others")
    by_fold: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        by_fold[row["fold"]].append(float(row[column]))
    values = [float(row[column]) for row in rows]
    return Figure(bootstrap_mean(values, paths), tuple(float(np.mean(by_fold[fold])) for fold in sorted(by_fold)))


def difference(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], column: str) -> Figure:
    """The mean over images of first - second, paired by image. ValueError: they hold other images."""
    before = {row["path"]: row for row in second}
    if {row["path"] for row in first} != before.keys():
        raise ValueError("the two sides of a difference hold other images")
    paired = [{**row, "difference": float(row[column]) - float(before[row["path"]][column])} for row in first]
    return figure(paired, "difference")


def grouped(rows: Rows, *names: str) -> dict[tuple[Any, ...], Rows]:
    """Rows by the values of some columns, in the order of their first row."""
    result: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        result.setdefault(tuple(row[name] for name in names), []).append(row)
    return result


def summarise(folders: Sequence[Path]) -> dict[str, Any]:
    """Everything that the tables, the plot and the JSON show."""
    pixels = grouped(read_rows(folders, "pixels.jsonl"), "model", "levels")
    probes = grouped(read_rows(folders, "probes.jsonl"), "representation", "levels", "dimensions")
    return {
        "pixels": {key: {name: figure(rows, name) for name in PIXEL_FIGURES} for key, rows in pixels.items()},
        "probes": {key: figure(rows, "correct") for key, rows in probes.items()},
    }


def tables(summary: Mapping[str, Any]) -> str:
    """Markdown."""
    lines = ["| model | levels | PSNR, dB | SSIM | cosine to the teacher |", "|---|---|---|---|---|"]
    for (model, levels), found in summary["pixels"].items():
        texts = [found[name].text(digits) for name, digits in zip(PIXEL_FIGURES, (2, 3, 3), strict=True)]
        lines.append(f"| {model} | {levels} | {' | '.join(texts)} |")
    lines += ["", "| representation | levels | dimensions | linear probe, % correct |", "|---|---|---|---|"]
    for (representation, levels, dimensions), found in summary["probes"].items():
        lines.append(f"| {representation} | {levels or ''} | {dimensions} | {found.text(1, 100)} |")
    return "\n".join(lines) + "\n"


def write_results(folders: Sequence[Path], out: Path, rates: str = "") -> None:
    """Writes OUT_tables.md, OUT.json and OUT.png; `rates`: a further table."""
    summary = summarise(folders)
    out.parent.mkdir(parents=True, exist_ok=True)
    text = tables(summary) + (f"\n{rates}" if rates else "")
    out.with_name(out.name + "_tables.md").write_text(text, encoding="utf-8")
    out.with_suffix(".json").write_text(json.dumps(_plain(summary), indent=1) + "\n", encoding="utf-8")
    _plot(summary, out.with_suffix(".png"))


def _plain(summary: Mapping[str, Any]) -> dict[str, Any]:
    pixels = [
        {"model": model, "levels": levels, **{name: asdict(value) for name, value in found.items()}}
        for (model, levels), found in summary["pixels"].items()
    ]
    probes = [
        {"representation": name, "levels": levels, "dimensions": dimensions, "accuracy": asdict(found)}
        for (name, levels, dimensions), found in summary["probes"].items()
    ]
    return {"pixels": pixels, "probes": probes}


def _plot(summary: Mapping[str, Any], file: Path) -> None:
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(12, 4), layout="constrained")
    left, right = drawing.subplots(1, 2)
    pixels = summary["pixels"].items()
    quality = [(levels, found["psnr"].interval) for (model, levels), found in pixels if model == "evotok"]
    _curve(left, "PSNR of the pixel read-out", quality)
    left.set(xlabel="levels", ylabel="dB, held-out images")
    for name in ("partial sum, mean", "partial sum, all places", "semantic read-out, mean", "pixel read-out"):
        chosen = [(levels, f.interval) for (key, levels, _), f in summary["probes"].items() if key == f"evotok: {name}"]
        _curve(right, name, chosen)
    for name, style in (("teacher", "--"), ("picture", ":")):
        mean = next(f.interval.mean for (key, _, _), f in summary["probes"].items() if key == name)
        right.axhline(100 * mean, linestyle=style, color="grey", label=name)
    right.set(xlabel="levels", ylabel="linear probe, % correct")
    right.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    drawing.savefig(file, dpi=120)


def _curve(axes: Any, name: str, points: Sequence[tuple[int, Interval]]) -> None:
    factor = 1.0 if name.startswith("PSNR") else 100.0
    levels = [level for level, _ in points]
    means, lows, highs = (
        np.array([getattr(interval, part) for _, interval in points]) * factor for part in ("mean", "low", "high")
    )
    axes.errorbar(levels, means, yerr=[means - lows, highs - means], marker="o", capsize=3, label=name)

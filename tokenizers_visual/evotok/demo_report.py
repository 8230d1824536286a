"""The page of EvoTok's demo: what `mmzoo.report` is to show of an outcome."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from data_engine.reader import ShardReader
from mmzoo.report.environment import run_environment
from mmzoo.report.metrics_file import read_curves
from mmzoo.report.record import (
    CodebookUsage,
    Curve,
    CurvePanel,
    Measure,
    MeasureTable,
    Picture,
    PictureGrid,
    PictureRow,
    RunReport,
)
from tokenizers_visual.evotok.demo_measure import Outcome, level_steps
from tokenizers_visual.evotok.processing import EvoTokImageProcessor

SHOWN_PHOTOGRAPHS = 6


def report_of(outcome: Outcome) -> RunReport:
    """The whole page."""
    minutes = outcome.demo.seconds["all"] / 60
    best = _trained(outcome)
    trained = len(outcome.index.split_rows("train"))
    return RunReport(
        title="EvoTok: an image tokenizer, trained and measured",
        summary=(
            f"A teacher and a tokenizer were trained on {trained} photographs in {minutes:.1f} minutes, measured on "
            f" {outcome.held_out.photographs} that neither ever saw, and reloaded from disk by another "
            f"process with bit-equal outputs."
        ),
        command=outcome.demo.command,
        headline=_headline(outcome, best),
        warnings=_warnings(outcome),
        grids=[_crops(outcome), *_regions(outcome)],
        tables=_tables(outcome),
        curves=_curves(outcome.demo.out),
        codebooks=[_usage(outcome)],
        facts=_facts(outcome),
        environment=run_environment(outcome.demo.out / "tokenizer"),
        not_measured=[
            "LPIPS and rFID: they need weights that do not come with this demo.",
            "Anything on a GPU.",
        ],
        notes=[
            "Crops are cut without resizing, so a token covers a few pixels of a sharp photograph; numbers of other "
            "tokenizers at 256 px are not comparable.",
            "Intervals resample whole photographs (bootstrap): crops of one photograph are alike.",
            "Bits per pixel are log2 of the codebook's size a level and token, before any entropy coding.",
        ],
    )


def bits_per_pixel(outcome: Outcome, levels: int) -> float:
    """Fixed-length code: levels x log2(K) bits a token of patch x patch px."""
    config = outcome.model.config
    return levels * math.log2(config.codebook_size) / config.patch_size**2


def _measure(name: str, interval: Any, unit: str = "", note: str = "") -> Measure:
    return Measure(
        name=name,
        value=interval.mean,
        unit=unit,
        low=interval.low,
        high=interval.high,
        level=interval.level if interval.low is not None else None,
        n=interval.n_groups,
        counted=f"photographs, {interval.n_values} crops",
        note=note,
    )


def _headline(outcome: Outcome, best: dict[str, Any]) -> list[Measure]:
    levels = outcome.model.config.pixel_levels
    used = [one.share for one in outcome.held_out.measurement.usage[:levels]]
    return [
        _measure("PSNR, held out", best["psnr"], "dB", f"{levels} levels, {bits_per_pixel(outcome, levels):.2f} bpp"),
        _measure("SSIM, held out", best["ssim"]),
        Measure("Codes in use", 100 * float(np.mean(used)), "%", note=f"mean of the {levels} pixel levels, held out"),
    ]


def _warnings(outcome: Outcome) -> list[str]:
    found, few = [], outcome.held_out.photographs
    ours, plain = (side["psnr"].mean for side in (_trained(outcome), outcome.held_out.trivial))
    if plain >= ours:
        found.append(
            f"One colour a token, enlarged, has a higher PSNR on the same crops: {plain:.1f} against {ours:.1f} dB."
        )
    if few < 20:
        found.append(
            f"Only {few} photographs are held out: the interval is wide, and another split gives other numbers."
        )
    return found


def _trained(outcome: Outcome) -> dict[str, Any]:
    """The figures at the number of levels that the pixels were trained on."""
    return outcome.held_out.summary[outcome.model.config.pixel_levels]


def _tables(outcome: Outcome) -> list[MeasureTable]:
    held_out = outcome.held_out
    rows = []
    for levels, measures in held_out.summary.items():
        name = f"{levels} level{'s' if levels > 1 else ''}, {bits_per_pixel(outcome, levels):.2f} bpp"
        rows += [_measure(f"PSNR, {name}", measures["psnr"], "dB"), _measure(f"SSIM, {name}", measures["ssim"])]
    patch = outcome.model.config.patch_size
    plain = f"one colour a token, {24 / patch**2:.2f} bpp"
    rows += [
        _measure(f"PSNR, {plain}", held_out.trivial["psnr"], "dB", "the patch's mean colour, enlarged by bicubic"),
        _measure(f"SSIM, {plain}", held_out.trivial["ssim"]),
    ]
    return [
        MeasureTable(
            "Reconstruction of held-out crops", rows, "On 8-bit pixels; the decoder was trained on all levels."
        ),
        MeasureTable("Meaning", _meaning(outcome.demo.out), "As logged at the end of the two trainings."),
    ]


def _meaning(out: Path) -> list[Measure]:
    teacher, tokenizer = (read_curves(out / run / "metrics.csv") for run in ("teacher", "tokenizer"))

    def last(curves: dict[str, Curve], name: str) -> float | None:
        return curves[name].values[-1] if name in curves else None

    def best(curves: dict[str, Curve], name: str, by: str) -> float | None:
        """The value where `by` was highest, first of equals: that of the checkpoint `best`, which the tokenizer had."""
        if name not in curves or by not in curves:
            return None
        place = max(range(len(curves[by].values)), key=lambda number: (curves[by].values[number], -number))
        return curves[name].values[place]

    chosen = "val/same_photograph"
    distance = last(tokenizer, "val/semantic_cosine")
    return [
        Measure(
            "cosine of semantics and teacher",
            None if distance is None else 1 - distance,
            note="all levels, held-out crops, mean over tokens",
        ),
        Measure(
            "teacher: nearest crop is of the same photograph",
            best(teacher, chosen, chosen),
            note="share of held-out crops, never trained on; the checkpoint was chosen by this figure",
        ),
        Measure("the same by mean colour alone", best(teacher, "val/same_photograph_by_colour", chosen)),
        Measure("the same by chance", best(teacher, "val/same_photograph_by_chance", chosen)),
    ]


def to_pixels(image: Tensor) -> np.ndarray:
    """(3, H, W) in [-1, 1] -> uint8 (H, W, 3), as the image processor gives pictures back."""
    return np.asarray(EvoTokImageProcessor().postprocess(image[None])[0])


def decibels(one: np.ndarray, other: np.ndarray) -> str:
    """PSNR of two pictures, as a caption."""
    error = np.square(one.astype(np.float64) - other.astype(np.float64)).mean()
    return "equal" if error == 0 else f"{10 * math.log10(255**2 / error):.1f} dB"


def _crops(outcome: Outcome) -> PictureGrid:
    model = outcome.model
    levels = level_steps(model.config.pixel_levels)
    rows = []
    for key, crop in list(outcome.held_out.crops.items())[:SHOWN_PHOTOGRAPHS]:
        codes, _ = model.encode(crop[None])
        truth = to_pixels(crop)
        decoded = [to_pixels(model.decode_pixels(codes[..., :count])[0]) for count in levels]
        pictures = [Picture(truth), *(Picture(pixels, decibels(truth, pixels)) for pixels in decoded)]
        rows.append(PictureRow(_path(outcome, key), pictures))
    size = model.config.image_size
    return PictureGrid(
        f"Held-out crops of {size} px, level by level",
        ["input", *(f"{count} level{'s' if count > 1 else ''}" for count in levels)],
        rows,
        "The first crop that was measured of each photograph; none was chosen by its look.",
    )


def _regions(outcome: Outcome) -> list[PictureGrid]:
    rows = []
    for key, (region, coded) in outcome.regions.items():
        truth, decoded = to_pixels(region), to_pixels(coded)
        rows.append(PictureRow(_path(outcome, key), [Picture(truth), Picture(decoded, decibels(truth, decoded))]))
    if not rows:
        return []
    size, levels = outcome.model.config.image_size, outcome.model.config.pixel_levels
    return [
        PictureGrid(
            "Larger regions, tile by tile",
            ["input", f"{levels} levels"],
            rows,
            f"The middle of held-out photographs, cut into {size} px tiles that are coded one by one: seams are the "
            f"tiles' borders.",
        )
    ]


def _path(outcome: Outcome, key: str) -> str:
    row = outcome.index.find(key)
    return key if row is None else str(ShardReader(outcome.index).meta(row)["path"])


def _curves(out: Path) -> list[CurvePanel]:
    teacher, tokenizer = (read_curves(out / run / "metrics.csv") for run in ("teacher", "tokenizer"))

    def panel(title: str, curves: dict[str, Curve], names: dict[str, str], **options: Any) -> list[CurvePanel]:
        found = [Curve(label, curves[n].steps, curves[n].values) for n, label in names.items() if n in curves]
        return [CurvePanel(title, found, **options)] if found else []

    losses = {"train/reconstruction": "training", "val/reconstruction": "held out"}
    meaning = {"train/semantic_cosine": "training", "val/semantic_cosine": "held out"}
    return [
        *panel("Tokenizer: PSNR", tokenizer, {"val/psnr": "held out"}, unit="dB"),
        *panel("Tokenizer: squared error", tokenizer, losses, logarithmic=True),
        *panel("Tokenizer: semantic distance", tokenizer, meaning, logarithmic=True),
        *panel("Tokenizer: share of codes in a batch", tokenizer, {"train/usage": "training, mean of all levels"}),
        *panel(
            "Teacher: which photograph?", teacher, {"train/accuracy": "training", "val/same_photograph": "held out"}
        ),
    ]


def _usage(outcome: Outcome) -> CodebookUsage:
    usage = outcome.held_out.measurement.usage
    levels = outcome.model.config.pixel_levels
    return CodebookUsage(
        "Codes used on held-out crops",
        outcome.model.config.codebook_size,
        [one.share for one in usage],
        [one.perplexity for one in usage],
        usage[0].positions,
        f"Levels 1 to {levels} carry pixels; all of them carry semantics.",
    )


def _facts(outcome: Outcome) -> dict[str, str]:
    demo, config = outcome.demo, outcome.model.config
    reader = ShardReader(outcome.index)

    def names(split: str) -> str:
        paths = [reader.meta(int(row))["path"] for row in outcome.index.split_rows(split)[:40]]
        more = len(outcome.index.split_rows(split)) - len(paths)
        return ", ".join(paths) + (f" and {more} more" if more > 0 else "")

    record = json.loads((demo.out / "tokenizer" / "run.json").read_text(encoding="utf-8"))
    parameters = sum(p.numel() for p in outcome.model.parameters())
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in demo.seconds.items())
    return {
        "trained on": names("train"),
        "held out": names("val"),
        "tokenizer": f"{config.image_size} px, patches of {config.patch_size} px, {config.levels} levels of "
        f"{config.codebook_size} codes, {parameters:,} parameters",
        "updates": f"{record['steps']:,}",
        "wall time": times,
        "reloaded, bit-equal": ", ".join(outcome.reloaded_outputs),
        "configs": "evotok/tiny-demo-teacher, evotok/tiny-demo",
    }

"""Finished evaluations on the disk, as `mmzoo eval run` leaves them, with numbers that a test chooses."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from eval_suites.evaluation import identity_stamp
from eval_suites.record import (
    DataStamp,
    EvalRecord,
    Metric,
    ModelStamp,
    SuiteStamp,
    read_record,
    write_record,
)
from eval_suites.sample_log import SampleLog, SampleRow
from eval_suites.statistics import bootstrap_mean

UNITS = {
    "psnr": ("dB", True),
    "jpeg_psnr": ("dB", None),
    "ssim": ("", True),
    "lpips_vgg": ("", False),
    "bpp": ("bits/px", None),
}


def noisy(mean: float, seed: int, n: int = 60, own: float = 0.1) -> list[float]:
    """n values about a mean: hard and easy samples are so for every seed (sd 3), `own` is the model's own noise."""
    shared = 3 * np.random.default_rng(0).standard_normal(n)
    return (mean + shared + own * np.random.default_rng(seed).standard_normal(n)).tolist()


def finish(
    folder: Path,
    model: str,
    columns: Mapping[str, list[float]],
    *,
    whole: tuple[Metric, ...] = (),
    suite: SuiteStamp | None = None,
    data: str = "natural",
    date: str = "2026-11-25T03:00:00+00:00",
    weights: str | None = None,
    group_of: int = 2,
) -> Path:
    """Writes folder/record.json and folder/samples.jsonl, returns the record's path.

    columns: metric -> a value a sample; `group_of` samples that follow each other are a group. whole: metrics without
    rows. weights: what the files' hashes are made from (default: the model's name).
    """
    n = max((len(values) for values in columns.values()), default=0)
    groups = [f"photo{number // group_of}" for number in range(n)]
    suite = suite or SuiteStamp("reconstruction", "1", {"levels": [1, 4], "resize": "none", "limit": None})
    files = {"model.safetensors": digest(weights or model)}
    model_stamp = ModelStamp(model, "evotok", "evotok/tiny", None, files, "verified", 3, 3, ())
    data_stamp = DataStamp(data, "shards", "val", digest(data), n)
    with SampleLog(folder / "samples.jsonl", identity_stamp(suite, model_stamp, data_stamp)) as log:
        for number, group in enumerate(groups):
            values = {name: column[number] for name, column in columns.items() if number < len(column)}
            log.append(SampleRow(f"{group}#{number}", group, values))
        stamp = log.stamp()
    metrics = [
        Metric.of(
            name,
            bootstrap_mean(values, groups[: len(values)]),
            unit=UNITS[name.partition("@")[0]][0],
            higher_is_better=UNITS[name.partition("@")[0]][1],
        )
        for name, values in columns.items()
    ]
    record = EvalRecord(
        schema=1,
        suite=suite,
        model=model_stamp,
        data=data_stamp,
        samples=stamp,
        metrics=(*metrics, *whole),
        command="mmzoo eval run reconstruction --model m --data d --out o",
        date=date,
        seconds=1.0,
        device="cpu",
        hardware={"cores": 2},
        versions={"torch": "2.15.0"},
        git_commit=None,
    )
    write_record(record, folder / "record.json")
    return folder / "record.json"


def changed(path: Path, **changes: object) -> None:
    """Writes the record again with other fields."""
    write_record(dataclasses.replace(read_record(path), **changes), path)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def example(folder: Path) -> Path:
    """Two tables: five models on natural (two alike, one without LPIPS), one model on another set; one superseded."""
    absent = Metric.absent("rfid@4", "weights absent", higher_is_better=False)
    for number, (model, mean) in enumerate({"best": 24.0, "twin-of-best": 24.0, "middle": 23.4, "low": 21.0}.items()):
        columns = {
            "psnr@4": noisy(mean, number),
            "lpips_vgg@4": [value / 100 for value in noisy(40 - mean, number, own=0.5)],
            "bpp@4": [4.5 + number] * 60,
        }
        finish(folder / model, model, columns, whole=(absent,))
    finish(folder / "owner", "owner/a-model-with-a-rather-long-name", {"psnr@4": noisy(22, 9)}, whole=(absent,))
    finish(folder / "earlier", "low", {"psnr@4": noisy(20, 3)}, date="2026-11-24T03:00:00+00:00")
    finish(folder / "other", "best", {"psnr@4": noisy(18, 5, n=9)}, data="satellite")
    return folder

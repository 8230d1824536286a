"""`mmzoo eval run reconstruction`: images from shards or a folder, encoded once, decoded level by level, a row each."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from data_engine.progress import tracked
from eval_suites.reconstruction.figures import make_metrics
from eval_suites.reconstruction.images import ImageSet, open_images
from eval_suites.reconstruction.logged_rows import check_rows
from eval_suites.reconstruction.measure import evaluation_mode
from eval_suites.reconstruction.networks import open_networks
from eval_suites.reconstruction.rate_distortion import curve_csv, rate_distortion
from eval_suites.reconstruction.rate_plot import curve_svg
from eval_suites.reconstruction.sample import Loaded, Measuring, Reading
from eval_suites.reconstruction.settings import Settings
from eval_suites.reconstruction.side_files import SideFiles
from eval_suites.reconstruction.teachers import open_teacher
from eval_suites.record import DataStamp, Metric
from eval_suites.request import EvalRequest
from mmzoo.durable_files import write_text
from mmzoo.ops.exact_float32 import exact_float32

CURVE = "rate_distortion"  #: .json, .csv and .svg, beside the record


def evaluate(request: EvalRequest) -> Sequence[Metric]:
    """See eval_suites/request.py; README.md beside this file is the protocol. Options: suite.py.

    Leaves the rate-distortion curve beside the log, as a table, as data, and drawn.
    """
    settings = Settings.of(request.options, request.model.config)
    images = _open_images(request)
    teacher = open_teacher(request.options.get("teacher"), request.model)
    networks = open_networks(settings, request.model, {**request.options, "teacher": teacher}, request.device)
    stated = {
        **settings.describe(),
        "networks": networks.describe(),
        "limit": request.limit,
        "group": request.options.get("group"),
        "dtype": _dtype(request.model),
    }
    stamp = DataStamp(images.name, images.kind, images.split, images.identity, len(images))
    log = request.open_log(stated, stamp)
    check_rows(log.path, log.rows, settings, networks)
    with SideFiles(log.path.parent, log.rows, settings.levels, networks.inception) as sides:
        todo = [number for number, key in enumerate(images.keys) if key not in log]
        measuring = Measuring(request.model, settings, networks, torch.device(request.device))
        with exact_arithmetic(request.device), evaluation_mode(request.model), torch.inference_mode(), _prefixes():
            for batch in tracked(_batches(images, settings, todo), "measuring", -(-len(todo) // settings.batch)):
                for sample in measuring.batch(batch):
                    log.append(sides.append(sample))
        metrics = make_metrics(log.rows, sides, settings, networks)
    write_curve(log.path.parent, rate_distortion(metrics, settings), f"{_size_text(settings)}, n {len(log.rows):,}")
    return metrics


def write_curve(folder: Path, curve: list[dict[str, Any]], what: str) -> None:
    """The table as JSON, as CSV and drawn. what: see curve_svg."""
    write_text(folder / f"{CURVE}.json", json.dumps(curve, indent=1, allow_nan=False) + "\n")
    write_text(folder / f"{CURVE}.csv", curve_csv(curve))
    write_text(folder / f"{CURVE}.svg", curve_svg(curve, what))


def _size_text(settings: Settings) -> str:
    """ "128 px", "crops of 16 px" or "own sizes"."""
    resize = settings.resize
    return {"none": "own sizes", "crop": f"crops of {resize.size} px"}.get(resize.how, f"{resize.size} px")


@contextmanager
def exact_arithmetic(device: torch.device | str) -> Iterator[None]:
    """float32 products and convolutions that really are float32: a GPU's defaults would move the figures by 1e-3."""
    convolutions: Any = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        with exact_float32(torch.device(device).type):
            yield
    finally:
        convolutions.fp32_precision = before


@contextmanager
def _prefixes() -> Iterator[None]:
    """Silences a model's warning of prefixes that it was not trained on: they are the subject here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"the (pixel|semantic) decoder was trained on")
        yield


def _dtype(model: Any) -> str | None:
    """The dtype of the weights; None for a tokenizer without any."""
    weight = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    return None if weight is None else str(weight.dtype).removeprefix("torch.")


def _open_images(request: EvalRequest) -> ImageSet:
    return open_images(request.data, split=request.split, group=request.options.get("group"), limit=request.limit)


def _batches(images: ImageSet, settings: Settings, todo: Sequence[int]) -> Iterator[list[Loaded]]:
    """Images of one size that follow each other, at most `batch` of them; always in the order of their keys."""
    batch: list[Loaded] = []
    for number in todo:
        source = images.pixels(number)
        pixels = settings.resize.apply(source)
        if batch and (len(batch) == settings.batch or batch[0].pixels.shape != pixels.shape):
            yield batch
            batch = []
        reading = Reading(images.keys[number], images.groups[number], source.shape[0], source.shape[1])
        batch.append(Loaded(reading, pixels))
    if batch:
        yield batch

"""Confusion counts of one model, or of the best threshold, on every image of the targets and of the source's holdout.

Writes `images.jsonl`: one row an image, {"domain", "image", "matrix"} with pixels by label (row) and prediction.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eval_suites.studies.brightness_threshold import LEVELS, best_threshold, smoothed
from geospatial.confusion import confusion_matrix
from geospatial.raster import stored_bands

CLASSES = 2
WINDOW = 64  #: px, what the models were trained on
BATCH = 32


class Picture(NamedTuple):
    """`bands` float32 (C, H, W), `labels` uint8 (H, W) with 255 where nothing is known."""

    domain: str
    name: str
    bands: np.ndarray
    labels: np.ndarray


def pictures(lists: Path, domain: str, split: str | None) -> Iterator[Picture]:
    """The pictures of a domain's list, of one split or (None) of all."""
    with (lists / f"{domain}.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if split in (None, row["split"]):
                bands, labels = (
                    stored_bands(lists / row["image"], "picture"),
                    stored_bands(Path(row["mask"]), "picture")[0],
                )
                yield Picture(domain, Path(row["image"]).stem, bands, labels.astype(np.uint8))


def measured_pictures(lists: Path, source: str, targets: Sequence[str]) -> Iterator[Picture]:
    """The validation pictures of the source, then all of each target."""
    yield from pictures(lists, source, "val")
    for target in targets:
        yield from pictures(lists, target, None)


def measure_model(model: Path, lists: Path, source: str, targets: Sequence[str], out: Path) -> None:
    """A segmentation model's checkpoint, window by window. Also writes `routing.json`: tokens by block and expert."""
    import torch

    from mmzoo.families import get_variant, load_object
    from mmzoo.hub.load import from_pretrained

    loaded: Any = from_pretrained(model, quiet=True).eval()
    processor = load_object(get_variant("crossearth-sar/tiny")[0].processor).for_config(loaded.config)
    routed: dict[str, np.ndarray] = {}

    @torch.inference_mode()
    def classes(picture: Picture) -> np.ndarray:
        found = []
        for part in torch.from_numpy(cut(picture.bands, WINDOW)).split(BATCH):
            output = loaded(**processor(list(part.numpy())))
            found.append(loaded.head.scores(output.head, (WINDOW, WINDOW)).argmax(1).to(torch.uint8).numpy())
            routed[picture.domain] = routed.get(picture.domain, 0) + output.encoder.expert_counts.numpy()
        return joined(np.concatenate(found), picture.labels.shape)

    write_rows(measured_pictures(lists, source, targets), classes, out / "images.jsonl")
    plain = {domain: counts.tolist() for domain, counts in routed.items()}
    (out / "routing.json").write_text(json.dumps(plain) + "\n", encoding="utf-8")


def measure_threshold(lists: Path, source: str, targets: Sequence[str], out: Path) -> None:
    """The single threshold with the best mIoU on the source's training pictures."""
    training = ((brightness(picture.bands), picture.labels) for picture in pictures(lists, source, "train"))
    chosen = best_threshold(training)
    (out / "threshold.json").write_text(json.dumps(chosen._asdict()) + "\n", encoding="utf-8")
    found = measured_pictures(lists, source, targets)
    write_rows(found, lambda picture: chosen.classes(brightness(picture.bands)), out / "images.jsonl")


def brightness(bands: np.ndarray) -> np.ndarray:
    """What is thresholded, (H, W): the smoothed picture, or the smoothed difference of after and before."""
    return np.clip(smoothed(bands[-1]), 0, LEVELS - 1)


def write_rows(found: Iterator[Picture], classes: Callable[[Picture], np.ndarray], file: Path) -> None:
    """One row a picture."""
    rows = []
    for picture in found:
        matrix = confusion_matrix(picture.labels, classes(picture), CLASSES)
        rows.append({"domain": picture.domain, "image": picture.name, "matrix": matrix.tolist()})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def cut(bands: np.ndarray, size: int) -> np.ndarray:
    """(C, H, W) -> windows (N, C, size, size), row by row. ValueError: a side that is no multiple of `size`."""
    channels, height, width = bands.shape
    if height % size or width % size:
        raise ValueError(f"a picture of {height} x {width} px is not made of windows of {size} px")
    grid = bands.reshape(channels, height // size, size, width // size, size)
    return np.ascontiguousarray(grid.transpose(1, 3, 0, 2, 4).reshape(-1, channels, size, size), dtype=np.float32)


def joined(windows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Windows (N, size, size) as `cut` gives them -> (H, W)."""
    size = windows.shape[-1]
    grid = windows.reshape(shape[0] // size, shape[1] // size, size, size)
    return np.ascontiguousarray(grid.transpose(0, 2, 1, 3).reshape(shape))

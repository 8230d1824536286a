"""`mmzoo eval run reconstruction`: images from shards or a folder, measured a few at a time, a row each."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_engine.decode import decode_image
from data_engine.index import INDEX_FOLDER, ShardIndex
from data_engine.progress import tracked
from data_engine.reader import ShardReader
from data_engine.sources.image_folder import ImageFile, Rejected, examine, list_files
from data_engine.splits import group_of, group_pattern
from eval_suites.reconstruction.measure import measure
from eval_suites.record import DataStamp, Metric
from eval_suites.request import EvalRequest
from eval_suites.sample_log import SampleLog, SampleRow
from eval_suites.statistics import bootstrap_mean
from mmzoo.errors import InputError

BATCH = 16
UNITS = {"psnr": "dB", "ssim": ""}


class Picture(NamedTuple):
    """key: unique; group: what the bootstrap keeps together; read() -> uint8 (H, W, 3)."""

    key: str
    group: str
    place: int | str


class Pictures:
    """The images to measure, in a fixed order: rows of a split by key, or the sound images of a folder by path."""

    def __init__(self, folder: Path, split: str, limit: int | None) -> None:
        self.folder = folder
        self.reader: ShardReader | None = None
        if (folder / INDEX_FOLDER).is_dir():
            self._open_shards(split, limit)
        else:
            self._open_folder(limit)
        if not self.pictures:
            raise InputError(f"{folder} holds no images to measure (split {split!r}). Look at: mmzoo data inspect")

    def _open_shards(self, split: str, limit: int | None) -> None:
        index = ShardIndex.open(self.folder)
        self.reader = reader = ShardReader(index)
        pattern = group_pattern(index.content["splits"].get("group"))
        rows = [int(row) for row in index.split_rows(split)[:limit]]
        self.pictures = [Picture(reader.key(row), group_of(reader.meta(row)["path"], pattern), row) for row in rows]
        self.stamp = DataStamp(index.source, "shards", split, index.identity, len(self.pictures))

    def _open_folder(self, limit: int | None) -> None:
        found: list[ImageFile] = []
        for path in list_files(self.folder):
            image = examine(self.folder, path, Counter())
            if isinstance(image, Rejected):
                raise InputError(f"{self.folder / image.path}: {image.reason}. Remove it, or mend it.")
            if image is not None:
                found.append(image)
            if limit is not None and len(found) == limit:
                break
        self.pictures = [Picture(image.path, group_of(image.path, None), image.path) for image in found]
        listed = "\n".join(f"{image.sha256} {image.path}" for image in found)
        identity = hashlib.sha256(listed.encode()).hexdigest()
        self.stamp = DataStamp(self.folder.resolve().name, "folder", None, identity, len(found))

    def read(self, picture: Picture) -> np.ndarray:
        """uint8 (H, W, 3)."""
        if self.reader is not None and isinstance(picture.place, int):
            return np.asarray(self.reader.sample(picture.place).fields["image"])
        return decode_image((self.folder / str(picture.place)).read_bytes())


def evaluate(request: EvalRequest) -> list[Metric]:
    """See eval_suites/request.py. PSNR and SSIM at each of the levels, as means over images."""
    config = request.model.config
    levels: Sequence[int] = request.options["levels"] or [config.pixel_levels]
    pictures = Pictures(request.data, request.split, request.limit)
    settings = {
        "levels": list(levels),
        "limit": request.limit,
        "resize": f"shorter side to {config.image_size} px (Pillow bicubic, antialiased), centre crop",
    }
    log = request.open_log(settings, pictures.stamp)
    todo = [picture for picture in pictures.pictures if picture.key not in log]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the pixel decoder was trained on")  # prefixes are the subject
        for group in tracked(_by_size(todo, BATCH), "measuring", -(-len(todo) // BATCH)):
            images = torch.stack([_square(pictures.read(picture), config.image_size) for picture in group])
            _measure_into(log, request, group, images, levels)
    return [_metric(log, kind, count) for count in levels for kind in UNITS]


def _by_size(items: Sequence[Picture], size: int) -> Iterator[Sequence[Picture]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _square(pixels: np.ndarray, side: int) -> Tensor:
    """uint8 (H, W, 3) -> (3, side, side) in [-1, 1]."""
    image = Image.fromarray(pixels)
    scale = side / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = np.array(image.crop((left, top, left + side, top + side)))
    return torch.from_numpy(square).permute(2, 0, 1).float() / 127.5 - 1


def _measure_into(
    log: SampleLog, request: EvalRequest, group: Sequence[Picture], images: Tensor, levels: Sequence[int]
) -> None:
    size = request.model.config.codebook_size
    names = [picture.key for picture in group]
    found = measure(request.model, [(names, images)], levels, codebook_size=size, device=request.device)
    for picture in group:
        rows = [row for row in found.rows if row.group == picture.key]
        values = {f"{kind}@{row.levels}": getattr(row, kind) for row in rows for kind in UNITS}
        log.append(SampleRow(picture.key, picture.group, values))


def _metric(log: SampleLog, kind: str, levels: int) -> Metric:
    name = f"{kind}@{levels}"
    mean = bootstrap_mean([row.values[name] for row in log.rows], [row.group for row in log.rows])
    return Metric.of(name, mean, unit=UNITS[kind], higher_is_better=True)

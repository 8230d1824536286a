"""Whole scenes by plain means: tiles read one by one, sums of the whole scene in memory, the same map at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.shutil import copy
from rasterio.windows import Window

from geospatial.scene_tiles import Blend, tile_weights

#: A batch: tiles (B, C, crop, crop), and row and column of each.
Batch = tuple[torch.Tensor, list[tuple[int, int]]]


def plain_windows(path: Path, blend: Blend, batch: int) -> Iterator[Batch]:
    """Tiles by one rasterio window each, in reading order."""
    with rasterio.open(path) as file:
        places = [(top, left) for top in _starts(file.height, blend) for left in _starts(file.width, blend)]
        for first in range(0, len(places), batch):
            chosen = places[first : first + batch]
            tiles = [file.read(window=Window(left, top, blend.crop, blend.crop)) for top, left in chosen]
            yield torch.from_numpy(np.stack(tiles)), chosen


def torchgeo_windows(path: Path, blend: Blend, batch: int) -> Iterator[Batch]:
    """Tiles by TorchGeo's RasterDataset and GridGeoSampler; tiles begin below, and may reach beyond the scene."""
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    dataset: Any = RasterDataset(paths=[path])
    sampler = GridGeoSampler(dataset, size=blend.crop, stride=blend.stride, units=_pixels())
    with rasterio.open(path) as file:
        transform = ~file.transform
    queries = list(sampler)
    loader = DataLoader(dataset, batch_size=batch, sampler=queries, collate_fn=stack_samples)
    for number, found in enumerate(loader):
        corners = [transform @ (query[0].start, query[1].stop) for query in queries[number * batch :][:batch]]
        yield found["image"], [(round(row), round(column)) for column, row in corners]


def _pixels() -> Any:
    from torchgeo.samplers import Units

    return Units.PIXELS


def _starts(length: int, blend: Blend) -> list[int]:
    last = max(0, length - blend.crop)
    return [*range(0, last, blend.stride), last]


def whole_scene_map(path: Path, target: Path, blend: Blend, model: Any, tiles: Iterator[Batch]) -> None:
    """Blends what the model says of `tiles` in arrays of the scene's size, and writes the classes as COG."""
    with rasterio.open(path) as file:
        height, width = file.height, file.width
    sums = np.zeros((model.channels, height, width), np.float32)
    total = np.zeros((height, width), np.float32)
    inner = tile_weights(3, blend)[1]
    for values, places in tiles:
        answers = model.predict(values, torch.ones_like(values[:, 0], dtype=torch.bool)).numpy()
        for answer, (top, left) in zip(answers, places, strict=True):
            down, across = (_side(inner, top, height, blend), _side(inner, left, width, blend))
            weight = np.outer(down, across).astype(np.float32)
            rows, columns = max(0, -top), max(0, -left)
            place = slice(top + rows, top + rows + len(down)), slice(left + columns, left + columns + len(across))
            known = answer[:, rows : rows + len(down), columns : columns + len(across)]
            sums[:, place[0], place[1]] += known * weight
            total[place] += weight
    sums /= total
    write_class_map(path, target, sums.argmax(0).astype(np.uint8))


def write_class_map(scene: Path, target: Path, classes: np.ndarray) -> None:
    """Classes (H, W) as COG with the place of the scene."""
    with rasterio.open(scene) as file:
        profile = {"crs": file.crs, "transform": file.transform}
    height, width = classes.shape
    plain = target.with_suffix(".plain.tif")
    size = {"count": 1, "height": height, "width": width, "dtype": "uint8", "nodata": 255}
    with rasterio.open(
        plain, "w", driver="GTiff", tiled=True, blockxsize=512, blockysize=512, **size, **profile
    ) as file:
        file.write(classes, 1)
    copy(plain, target, driver="COG", compress="deflate", overview_resampling="mode", num_threads="all_cpus")
    plain.unlink()


def _side(inner: np.ndarray, start: int, length: int, blend: Blend) -> np.ndarray:
    """Weights along one side: no fading at the edges of the scene, nothing beyond them."""
    weights = inner.copy()
    if start <= 0:
        weights[: blend.overlap - start] = 1
    if start + blend.crop >= length:
        weights[blend.crop - blend.overlap :] = 1
    return weights[max(0, -start) : length - start]

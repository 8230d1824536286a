"""A scene of any size through a model that sees tiles: read in row bands, blended, given out from top to bottom.

Memory is that of some row bands, whatever the height of the scene. `reference` is the same by definition: the whole
scene in memory, sums in float64. What comes out depends neither on the batch size nor on the order of the tiles.
Source: spec section 6.4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from geospatial.raster import Pixels
from geospatial.scene_accumulator import RowAccumulator
from geospatial.scene_reader import BandReader
from geospatial.scene_tiles import Blend, ScenePlan, tile_weights
from mmzoo.errors import InputError


class TileModel(Protocol):
    """What looks at tiles. `channels`: numbers a pixel that it gives; `device`: where its answers are."""

    channels: int
    device: torch.device

    def predict(self, values: Tensor, valid: Tensor) -> Tensor:
        """Raster values float32 (B, C, crop, crop), 0 where not `valid` bool (B, crop, crop), both on the CPU ->
        float32 (B, channels, crop, crop) on `device`. Neighbours share the memory of what they both see: not to be
        written to, nor to be kept.
        """
        ...


class Band(NamedTuple):
    """Finished rows: `top` (px), `values` float32 (channels, n, W) on the model's device, `valid` bool (n, W); views
    that the next band changes.
    """

    top: int
    values: Tensor
    valid: np.ndarray


def stream(plan: ScenePlan, reader: BandReader, model: TileModel, batch: int, done: int = 0) -> Iterator[Band]:
    """The rows of a scene from row `done` (px) on, one band a row of tiles; the same whatever `done` is.

    InputError: a model that gives no finite numbers where the scene has data.
    """
    first = plan.first_needed(done)
    sums = RowAccumulator(plan, model.channels, model.device)
    starts, height = plan.rows.starts, plan.rows.length
    places = [(start, min(start + plan.crop, height)) for start in starts]
    for row in range(first, len(starts)):
        pixels = reader.rows(*places[row], places[row + 1] if row + 1 < len(starts) else None)
        _add_row(plan, row, pixels, model, sums, batch)
        values, valid = sums.take(row), pixels.valid[: plan.finished(row) - starts[row]]
        skipped = max(0, done - starts[row])
        if skipped < len(valid):
            band = Band(starts[row] + skipped, values[:, skipped:], valid[skipped:])
            refuse_not_finite(band)
            yield band


def _add_row(plan: ScenePlan, row: int, pixels: Pixels, model: TileModel, sums: RowAccumulator, batch: int) -> None:
    # A tile without any data says nothing of a pixel that has some.
    starts, crop = plan.columns.starts, plan.crop
    known = np.asarray(pixels.valid.any(0))
    columns = [n for n, left in enumerate(starts) if known[left : left + crop].any()]
    for first in range(0, len(columns), batch):
        chosen = columns[first : first + batch]
        values, valid = tile_batch(pixels, [starts[column] for column in chosen], crop)
        for column, answer in zip(chosen, model.predict(values, valid), strict=True):
            sums.add(row, column, answer)


def tile_batch(pixels: Pixels, lefts: Sequence[int], crop: int) -> tuple[Tensor, Tensor]:
    """Tiles (B, C, crop, crop) that begin at columns `lefts` of a band, and their valid pixels (B, crop, crop); what is
    beyond the band is not valid. Views of the band where their distances are equal and it holds them all.
    """
    height, width = pixels.valid.shape
    known, mask = torch.from_numpy(pixels.values), torch.from_numpy(pixels.valid)
    steps = set(np.diff(lefts).tolist())
    if len(steps) <= 1 and height == crop and lefts[-1] + crop <= width:
        part, step = slice(lefts[0], lefts[-1] + crop), max(steps, default=1)
        tiles = known[..., part].unfold(-1, crop, step), mask[..., part].unfold(-1, crop, step)
        return tiles[0].permute(2, 0, 1, 3), tiles[1].transpose(0, 1)
    return _copied_tiles(known, mask, lefts, crop)


def _copied_tiles(known: Tensor, mask: Tensor, lefts: Sequence[int], crop: int) -> tuple[Tensor, Tensor]:
    bands, height, width = known.shape
    values = torch.zeros((len(lefts), bands, crop, crop))
    valid = torch.zeros((len(lefts), crop, crop), dtype=torch.bool)
    for number, left in enumerate(lefts):
        right = min(left + crop, width)
        values[number, :, :height, : right - left] = known[:, :, left:right]
        valid[number, :height, : right - left] = mask[:, left:right]
    return values, valid


def refuse_not_finite(band: Band) -> None:
    """InputError: NaN or infinity among the numbers of pixels that have data."""
    if torch.isfinite(band.values.sum()):  # one pass; what it does not settle is looked at closely
        return
    finite = torch.isfinite(band.values).all(0).cpu().numpy()
    wrong = band.valid & ~finite
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(
            f"the model gives no finite numbers at row {band.top + row}, column {column}. Look at the training of the "
            f"model, and for values in the scene that its domain cannot hold"
        )


def reference(pixels: Pixels, blend: Blend, model: TileModel) -> np.ndarray:
    """What `stream` gives, (channels, H, W) float64: all tiles one by one, sums and weights of the whole scene."""
    height, width = pixels.valid.shape
    shape = max(height, blend.crop), max(width, blend.crop)
    total, weights = np.zeros((model.channels, *shape)), np.zeros(shape)
    counts = [1 + math.ceil((side - blend.crop) / blend.stride) for side in shape]
    sides = [tile_weights(count, blend) for count in counts]
    for row in range(counts[0]):
        for column in range(counts[1]):
            top = min(row * blend.stride, shape[0] - blend.crop)
            left = min(column * blend.stride, shape[1] - blend.crop)
            place = slice(top, top + blend.crop), slice(left, left + blend.crop)
            part = Pixels(pixels.values[:, place[0]], pixels.valid[place[0]])
            values, valid = tile_batch(part, [left], blend.crop)
            weight = np.outer(sides[0][row], sides[1][column])
            total[:, place[0], place[1]] += weight * model.predict(values, valid)[0].double().cpu().numpy()
            weights[place] += weight
    return (total / weights)[:, :height, :width]

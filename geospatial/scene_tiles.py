"""Where the tiles of a scene lie and how much each says of every pixel: two short lists of weights, one an axis.

Tiles form a grid, so the weight of a tile at a pixel is the product of one number for its row and one for its column.
Both are divided by their sum over the tiles beforehand: what tiles say then only has to be added up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from mmzoo.errors import InputError

Shape = Literal["cosine", "constant"]


@dataclass(frozen=True)
class Blend:
    """crop: side of a tile. overlap: of neighbours. halo: of a tile's border, not used where a neighbour has the same
    pixels; at most half of the overlap. All in px. shape: what is between the halos is mixed by a rising cosine, or
    evenly.
    """

    crop: int
    overlap: int
    halo: int
    shape: Shape = "cosine"

    def __post_init__(self) -> None:
        if self.crop < 1:
            raise InputError(f"--crop must be at least 1 px, not {self.crop}")
        if not 0 <= self.overlap < self.crop:
            raise InputError(f"--overlap must be 0 to {self.crop - 1} px, less than a tile of {self.crop} px")
        if not 0 <= 2 * self.halo <= self.overlap:
            raise InputError(f"--halo must be 0 to {self.overlap // 2} px, half of the overlap, not {self.halo}")

    @property
    def stride(self) -> int:
        """From one tile to the next, px."""
        return self.crop - self.overlap

    def ramp(self) -> np.ndarray:
        """Weights (overlap,) with which a tile comes in, float64."""
        mixed = self.overlap - 2 * self.halo
        steps = np.sin(np.pi / 2 * (np.arange(mixed) + 0.5) / max(1, mixed)) ** 2
        return np.concatenate(
            [np.zeros(self.halo), steps if self.shape == "cosine" else np.ones(mixed), np.ones(self.halo)]
        )


class Axis(NamedTuple):
    """Tiles along one side of a scene: `starts` (px), the first at 0; `weights` float32 (tiles, crop), which add up to
    1 at every pixel; `length` of the side, px. A tile of a side that is shorter than the crop reaches beyond it.
    """

    starts: tuple[int, ...]
    weights: np.ndarray
    length: int


def plan_axis(length: int, blend: Blend) -> Axis:
    """The tiles along a side of `length` px; the last one is moved back inside."""
    last = max(0, length - blend.crop)
    starts = (*range(0, last, blend.stride), last)
    raw = tile_weights(len(starts), blend)
    total = np.zeros(max(length, blend.crop))
    for start, weights in zip(starts, raw, strict=True):
        total[start : start + blend.crop] += weights
    shares = [weights / total[start : start + blend.crop] for start, weights in zip(starts, raw, strict=True)]
    return Axis(starts, np.stack(shares).astype(np.float32), length)


def tile_weights(count: int, blend: Blend) -> np.ndarray:
    """Weights float64 (count, crop) of the tiles of one side before they are made to add up to 1: the first and the
    last tile are not faded out towards the edge of the scene.
    """
    weights = np.ones((count, blend.crop))
    if blend.overlap:
        weights[1:, : blend.overlap] *= blend.ramp()
        weights[:-1, blend.crop - blend.overlap :] *= blend.ramp()[::-1]
    return weights


class ScenePlan(NamedTuple):
    """The tiles of a scene: a grid of `rows` x `columns`."""

    rows: Axis
    columns: Axis
    crop: int

    @property
    def tiles(self) -> int:
        """How many there are."""
        return len(self.rows.starts) * len(self.columns.starts)

    def finished(self, number: int) -> int:
        """How many rows of the scene no tile row after `number` touches."""
        if number + 1 == len(self.rows.starts):
            return self.rows.length
        return self.rows.starts[number + 1]

    def first_needed(self, row: int) -> int:
        """The first row of tiles that has a part in row `row` (px) of the scene or in one below."""
        return next(n for n, start in enumerate(self.rows.starts) if start + self.crop > min(row, self.rows.length - 1))


def plan_scene(height: int, width: int, blend: Blend) -> ScenePlan:
    """The tiles of a scene of `height` x `width` px."""
    return ScenePlan(plan_axis(height, blend), plan_axis(width, blend), blend.crop)

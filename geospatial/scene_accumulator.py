"""The rows of a scene that tiles still add to: as many as a tile is high, whatever the height of the scene."""

from __future__ import annotations

import torch
from torch import Tensor

from geospatial.scene_tiles import ScenePlan


class RowAccumulator:
    """Weighted sums (channels, crop, width) in float32, on `device`, and room for the next ones: what is new each time
    costs more than the sums. Memory: 8 * channels * crop * width bytes.
    """

    def __init__(self, plan: ScenePlan, channels: int, device: torch.device) -> None:
        self.plan = plan
        width = max(plan.columns.length, plan.crop)
        self._sums = torch.zeros((channels, plan.crop, width), device=device)
        self._next = torch.empty_like(self._sums)
        self._down = torch.from_numpy(plan.rows.weights).to(device)
        self._across = torch.from_numpy(plan.columns.weights).to(device)

    def add(self, row: int, column: int, tile: Tensor) -> None:
        """Adds what tile (row, column) of the plan says, (channels, crop, crop); the rows above must be taken."""
        left = self.plan.columns.starts[column]
        weight = self._down[row][:, None] * self._across[column]
        self._sums[:, :, left : left + self.plan.crop].addcmul_(tile, weight)

    def take(self, row: int) -> Tensor:
        """The rows that are finished after tile row `row`, (channels, n, width of the scene); they leave the sums. A
        view that the next `take` changes.
        """
        plan = self.plan
        count = plan.finished(row) - plan.rows.starts[row]
        kept = plan.crop - count
        self._next[:, :kept] = self._sums[:, count:]
        self._next[:, kept:] = 0
        self._sums, self._next = self._next, self._sums
        return self._next[:, :count, : plan.columns.length]

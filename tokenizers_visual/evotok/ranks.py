"""What the ranks of a distributed run must agree on. In a single process everything here returns at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether this process is one of several ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """`tensor` summed over the ranks, in place."""
    if is_distributed():
        dist.all_reduce(tensor)
    return tensor


def from_rank_zero(tensor: Tensor) -> Tensor:
    """Rank 0's `tensor` on every rank, in place; shape and dtype must agree."""
    if is_distributed():
        dist.broadcast(tensor, src=0)
    return tensor


@dataclass(frozen=True)
class RowSpan:
    """This rank's rows in the global batch: rows `start` to `start + count` of `total`, ranks one after another."""

    start: int
    count: int
    total: int

    @classmethod
    def of(cls, rows: Tensor) -> RowSpan:
        """The span of this rank's `rows` (N, D); every rank must ask."""
        count = rows.shape[0]
        if not is_distributed():
            return cls(0, count, count)
        counts = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=rows.device)
        counts[dist.get_rank()] = count
        sizes: list[int] = sum_over_ranks(counts).tolist()
        return cls(sum(sizes[: dist.get_rank()]), count, sum(sizes))

    def pick(self, rows: Tensor, numbers: Tensor) -> Tensor:
        """Rows (K, D) of the global batch by `numbers` (K,), equal on every rank; `rows` (N, D): this rank's share."""
        if not is_distributed():
            return rows[numbers]
        local = numbers - self.start
        mine = (local >= 0) & (local < self.count)
        picked = rows.new_zeros(numbers.shape[0], rows.shape[1])
        picked[mine] = rows[local[mine]]
        return sum_over_ranks(picked)

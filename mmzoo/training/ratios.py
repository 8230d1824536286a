"""Means that are exact over batches and ranks: totals and counts are gathered, and divided once."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from mmzoo.training.ranks import collective_device, from_all_ranks, several_ranks


class Ratios:
    """Named sums of totals and counts."""

    def __init__(self) -> None:
        self._pairs: dict[str, Tensor] = {}

    def add(self, name: str, total: Tensor | float, count: Tensor | float, device: torch.device) -> None:
        """Adds to both sums of a name; float64, so that long validations lose nothing."""
        values = [torch.as_tensor(value, dtype=torch.float64, device=device).detach() for value in (total, count)]
        pair = torch.stack(values)
        self._pairs[name] = self._pairs[name] + pair if name in self._pairs else pair

    def take(self) -> dict[str, float]:
        """Total / count of each name over all ranks, and a fresh start; names without a count are left out.

        Every rank takes part, also one that has nothing to say (its share of a short batch was empty).
        """
        pairs, self._pairs = self._pairs, {}
        names = sorted({name for rank in from_all_ranks(sorted(pairs)) for name in rank})
        if not names:
            return {}
        device = next(iter(pairs.values())).device if pairs else collective_device()
        nothing = torch.zeros(2, dtype=torch.float64, device=device)
        sums = torch.stack([pairs.get(name, nothing) for name in names])
        if several_ranks():
            dist.all_reduce(sums)
        return {name: total / count for name, (total, count) in zip(names, sums.tolist(), strict=True) if count}

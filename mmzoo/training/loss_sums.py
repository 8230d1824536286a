"""Losses as sums and counts, so that micro-batches, short batches and ranks add up to exactly the whole batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

#: How many terms a part has: an int where shapes decide, a scalar tensor where the content does (labels, masks).
Count = int | Tensor


@dataclass(frozen=True)
class LossSum:
    """A loss as the sum of `count` terms: `sum` a float32 scalar, `count` how many terms it has."""

    sum: Tensor
    count: Count

    @property
    def mean(self) -> Tensor:
        """The loss proper; 0 (with a gradient of 0) over no terms."""
        return self.over(self.count)

    def over(self, count: Count) -> Tensor:
        """This sum divided by another count: the share of this micro-batch in the mean over `count` terms."""
        return self.sum / at_least_one(count)

    def __add__(self, other: LossSum) -> LossSum:
        return LossSum(self.sum + other.sum, self.count + other.count)


@dataclass(frozen=True)
class WeightedLoss:
    """The parts of a loss by name, each with its weight; `total` is the weighted sum of the parts' means."""

    parts: Mapping[str, LossSum]
    weights: Mapping[str, float | Tensor]

    @classmethod
    def of(cls, part: LossSum, name: str = "loss") -> WeightedLoss:
        """A loss of one part of weight 1."""
        return cls({name: part}, {name: 1.0})

    @property
    def total(self) -> Tensor:
        """The loss of this batch alone."""
        return self.share_of({name: part.count for name, part in self.parts.items()})

    def share_of(self, counts: Mapping[str, Count]) -> Tensor:
        """What this micro-batch adds to the loss of a big batch whose parts have `counts` terms; shares add up to it.

        KeyError: a part that `counts` does not name.
        """
        shares = [_weighted(self.weights[name], part.over(counts[name])) for name, part in self.parts.items()]
        return torch.stack(shares).sum() if len(shares) > 1 else shares[0]

    def plus(self, name: str, part: LossSum, weight: float | Tensor = 1.0) -> WeightedLoss:
        """This loss with one part more. ValueError: it has a part of that name."""
        if name in self.parts:
            raise ValueError(f"the loss has a part {name!r} already")
        return WeightedLoss({**self.parts, name: part}, {**self.weights, name: weight})

    def __add__(self, other: WeightedLoss) -> WeightedLoss:
        if self.parts.keys() != other.parts.keys() or self.weights != other.weights:
            raise ValueError(f"losses with parts {list(self.parts)} and {list(other.parts)} do not add up")
        return WeightedLoss({name: part + other.parts[name] for name, part in self.parts.items()}, self.weights)


def _weighted(weight: float | Tensor, share: Tensor) -> Tensor:
    """Their product, without a node in the graph where that changes nothing."""
    return share if not isinstance(weight, Tensor) and weight == 1 else weight * share


def at_least_one(count: Count) -> Count:
    """The divisor of a mean: over no terms, one."""
    return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)

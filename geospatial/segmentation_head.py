"""What training and inference ask of a segmentation head, and cross-entropy as a sum with a count.

Losses are sums with counts (`mmzoo.training.loss_sums`); the counts follow from the labels alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geospatial.class_masks import IGNORE
from mmzoo.errors import InputError
from mmzoo.training.loss_sums import LossSum


@dataclass(frozen=True)
class Labels:
    """What a loss compares with.

    `classes` int64 (B, H, W), IGNORE where not labelled; `weights` float32 (B,), one a sample: it multiplies the
    sample's terms and not their count, so a weight of 0.5 is half the influence.
    """

    classes: Tensor
    weights: Tensor


class SegmentationHead(nn.Module):
    """What training and inference ask of a head."""

    #: Weight of each part of the loss.
    loss_weights: dict[str, float]

    def forward(self, features: Sequence[Tensor]) -> dict[str, Any]:
        """The head's own outputs for maps (B, C, h, w)."""
        raise NotImplementedError

    def losses(self, outputs: dict[str, Any], labels: Labels) -> dict[str, LossSum]:
        """The parts of the loss by name."""
        raise NotImplementedError

    def counts(self, labels: Labels) -> dict[str, Tensor]:
        """How many terms each part has: int64 scalars, from the labels alone."""
        raise NotImplementedError

    def scores(self, outputs: dict[str, Any], size: tuple[int, int]) -> Tensor:
        """Class probabilities of each pixel: float32 (B, K, H, W), K classes, which sum to 1."""
        raise NotImplementedError


def checked_class_weights(weights: Sequence[float] | None, classes: int) -> tuple[float, ...]:
    """One weight a class, 1 by default. InputError: another number of weights, or negative ones."""
    if weights is None:
        return (1.0,) * classes
    if len(weights) != classes or min(weights) < 0:
        raise InputError(f"class_weights must be {classes} numbers of 0 or more, not {list(weights)}")
    return tuple(float(weight) for weight in weights)


def cross_entropy(logits: Tensor, labels: Labels, class_weights: Sequence[float]) -> LossSum:
    """Weighted cross-entropy (nats) of logits (B, K, H, W) over the labelled pixels, in float32.

    The count is the number of labelled pixels, whatever their weights: a rare class of weight 5 raises the loss.
    """
    weights = torch.tensor(class_weights, device=logits.device)
    terms = F.cross_entropy(logits.float(), labels.classes, weights, ignore_index=IGNORE, reduction="none")
    return LossSum((terms.flatten(1).sum(1) * labels.weights).sum(), (labels.classes != IGNORE).sum())

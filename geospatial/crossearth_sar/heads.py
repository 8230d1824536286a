"""Segmentation heads: what every one can do, and the two light ones (linear, FPN).

A head gets the backbone's maps, coarse to fine in no particular order: each (B, C, h, w) on the patch grid. Losses are
sums with counts (`mmzoo.training.loss_sums`); the counts follow from the labels alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmzoo.errors import InputError
from mmzoo.training.loss_sums import LossSum

#: In labels: left out of losses and scores; the same number as in `geospatial.class_masks`.
IGNORE = 255
#: Sides of the four maps that a decoder gets, relative to the patch grid (spec section 1.2).
PYRAMID = (4.0, 2.0, 1.0, 0.5)


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


def feature_pyramid(features: Sequence[Tensor]) -> list[Tensor]:
    """Four maps of the patch grid, resized to 4, 2, 1 and 0.5 times it (at least 1 px), each from its own map."""
    if len(features) != len(PYRAMID):
        raise InputError(f"this head needs the maps of {len(PYRAMID)} layers, not {len(features)}. Set out_layers")
    return [_resized(one, factor) for one, factor in zip(features, PYRAMID, strict=True)]


def _resized(features: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return features
    size = [max(1, int(side * factor)) for side in features.shape[-2:]]
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def checked_class_weights(weights: Sequence[float] | None, classes: int) -> Tensor:
    """float32 (K,), ones by default. InputError: another number of weights, or negative ones."""
    if weights is None:
        return torch.ones(classes)
    if len(weights) != classes or min(weights) < 0:
        raise InputError(f"class_weights must be {classes} numbers of 0 or more, not {list(weights)}")
    return torch.tensor([float(weight) for weight in weights])


def cross_entropy(logits: Tensor, labels: Labels, class_weights: Tensor) -> LossSum:
    """Weighted cross-entropy (nats) of logits (B, K, H, W) over the labelled pixels, in float32.

    The count is the number of labelled pixels, whatever their weights: a rare class of weight 5 raises the loss.
    """
    terms = F.cross_entropy(
        logits.float(), labels.classes, class_weights.to(logits.device), ignore_index=IGNORE, reduction="none"
    )
    return LossSum((terms.flatten(1).sum(1) * labels.weights).sum(), (labels.classes != IGNORE).sum())


class PixelHead(SegmentationHead):
    """A head that makes a coarse map of logits, (B, K, h, w) under "logits"; it is enlarged to the labels' size."""

    def __init__(self, classes: int, class_weights: Sequence[float] | None) -> None:
        super().__init__()
        self.class_weights = nn.Buffer(checked_class_weights(class_weights, classes), persistent=False)
        self.loss_weights = {"cross_entropy": 1.0}

    def losses(self, outputs: dict[str, Any], labels: Labels) -> dict[str, LossSum]:
        logits = enlarged(outputs["logits"], labels.classes.shape[-2:])
        return {"cross_entropy": cross_entropy(logits, labels, self.class_weights)}

    def counts(self, labels: Labels) -> dict[str, Tensor]:
        return {"cross_entropy": (labels.classes != IGNORE).sum()}

    def scores(self, outputs: dict[str, Any], size: tuple[int, int]) -> Tensor:
        return enlarged(outputs["logits"], size).softmax(1)


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, C, h, w) at (H, W) px, bilinear, float32."""
    return F.interpolate(maps.float(), size=list(size), mode="bilinear", align_corners=False)


class LinearHead(PixelHead):
    """All maps side by side, normalised, and one linear layer: what the features hold by themselves."""

    def __init__(self, channels: int, layers: int, classes: int, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(classes, class_weights)
        self.norm = nn.LayerNorm(channels * layers)
        self.classifier = nn.Linear(channels * layers, classes)

    def forward(self, features: Sequence[Tensor]) -> dict[str, Any]:
        together = torch.cat(list(features), 1).movedim(1, -1)  # (B, h, w, C * layers)
        return {"logits": self.classifier(self.norm(together)).movedim(-1, 1)}


class FpnHead(PixelHead):
    """A feature pyramid network with `width` channels: lateral 1x1, top-down sums, 3x3, all levels summed at the
    finest, 4 times the patch grid.
    """

    def __init__(self, channels: int, classes: int, width: int = 128, class_weights: Sequence[float] | None = None):  # noqa: ANN204
        super().__init__(classes, class_weights)
        self.norms = nn.ModuleList(nn.GroupNorm(1, channels) for _ in PYRAMID)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for _ in PYRAMID)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in PYRAMID)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, features: Sequence[Tensor]) -> dict[str, Any]:
        levels = [
            lateral(norm(level))
            for lateral, norm, level in zip(self.lateral, self.norms, feature_pyramid(features), strict=True)
        ]
        for fine in range(len(levels) - 2, -1, -1):
            levels[fine] = levels[fine] + _to_size_of(levels[fine + 1], levels[fine])
        smoothed = [_to_size_of(smooth(level), levels[0]) for smooth, level in zip(self.smooth, levels, strict=True)]
        return {"logits": self.classifier(F.relu(torch.stack(smoothed).sum(0)))}


def _to_size_of(maps: Tensor, other: Tensor) -> Tensor:
    if maps.shape[-2:] == other.shape[-2:]:
        return maps
    return F.interpolate(maps, size=other.shape[-2:], mode="bilinear", align_corners=False)

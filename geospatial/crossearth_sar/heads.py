"""The light segmentation heads: linear and FPN.

A head gets the maps of some layers of the backbone, in their order: each (B, C, h, w) on the patch grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geospatial.class_masks import IGNORE
from geospatial.segmentation_head import Labels, SegmentationHead, checked_class_weights, cross_entropy
from mmzoo.errors import InputError
from mmzoo.training.loss_sums import LossSum

#: Sides of the four maps that a decoder gets, relative to the patch grid (spec section 1.2).
PYRAMID = (4.0, 2.0, 1.0, 0.5)


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


class PixelHead(SegmentationHead):
    """A head that makes a coarse map of logits, (B, K, h, w) under "logits"; it is enlarged to the labels' size."""

    def __init__(self, classes: int, class_weights: Sequence[float] | None) -> None:
        super().__init__()
        self.class_weights = checked_class_weights(class_weights, classes)
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

"""Mask2Former on our features, from transformers' parts (spec sections 1.5 and 1.6).

The pixel decoder, the transformer module, the matcher and the choice of points are transformers' own, which are no
public interface: all that is used of them is used here, and tests/geospatial/test_mask2former_head.py says when they
change. Ours are the sums and counts (theirs are means of one process), and that pixels without a label count for
nothing (theirs take them for background of every mask).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerLoss,
    Mask2FormerPixelDecoder,
    Mask2FormerPreTrainedModel,
    Mask2FormerTransformerModule,
    sample_point,
)

from geospatial.class_masks import IGNORE
from geospatial.crossearth_sar.heads import PYRAMID, enlarged, feature_pyramid
from geospatial.segmentation_head import Labels, SegmentationHead, checked_class_weights
from mmzoo.errors import InputError
from mmzoo.training.loss_sums import LossSum

#: Counts are whole numbers, class weights are not: both are kept in thousandths.
UNITS = 1000
GROUPS = 32  #: of transformers' group norms, so the width divides by it


@dataclass(frozen=True)
class Mask2FormerSettings:
    """The published sizes by default. width: channels everywhere. queries, heads: of the transformer module.
    encoder_layers: of the deformable pixel decoder. decoder_layers: masked attention layers. points: sampled a mask.
    """

    width: int = 256
    queries: int = 100
    heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 9
    encoder_hidden: int = 1024
    decoder_hidden: int = 2048
    points: int = 12544
    no_object_weight: float = 0.1

    def __post_init__(self) -> None:
        if self.width % GROUPS or self.width % (2 * self.heads):
            raise InputError(
                f"mask2former: width {self.width} must divide by {GROUPS} and by twice the {self.heads} heads"
            )
        if min(asdict(self).values()) <= 0:
            raise InputError(f"mask2former: every setting must be above 0: {asdict(self)}")

    def config(self, classes: int) -> Mask2FormerConfig:
        """transformers' configuration of these sizes; its backbone is never built."""
        return Mask2FormerConfig(
            feature_size=self.width,
            mask_feature_size=self.width,
            hidden_dim=self.width,
            encoder_feedforward_dim=self.encoder_hidden,
            dim_feedforward=self.decoder_hidden,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers + 1,  # theirs counts the predictions, of which one comes before
            num_attention_heads=self.heads,
            num_queries=self.queries,
            no_object_weight=self.no_object_weight,
            train_num_points=self.points,
            num_labels=classes,  # pyright: ignore[reportCallIssue] - one of its base class
        )


class MaskDecoder(Mask2FormerPreTrainedModel):
    """transformers' parts with their own starting values: maps -> class and mask logits after each layer."""

    def __init__(self, channels: int, classes: int, settings: Mask2FormerSettings) -> None:
        config = settings.config(classes)
        super().__init__(config)
        self.pixel_decoder = Mask2FormerPixelDecoder(config, feature_channels=[channels] * len(PYRAMID))
        self.transformer_module = Mask2FormerTransformerModule(in_features=settings.width, config=config)
        self.class_predictor = nn.Linear(settings.width, classes + 1)
        self.post_init()

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """(class logits (B, Q, K + 1), mask logits (B, Q, h, w)) of the start and of each layer, the last one last."""
        pixels = self.pixel_decoder(feature_pyramid(features), output_hidden_states=False, return_dict=True)
        decoded = self.transformer_module(
            multi_scale_features=list(pixels.multi_scale_features),
            mask_features=pixels.mask_features,
            output_hidden_states=False,
            output_attentions=False,
        )
        states = decoded.intermediate_hidden_states  # (Q, B, C) each
        return [self.class_predictor(state.transpose(0, 1)) for state in states], list(decoded.masks_queries_logits)


@dataclass(frozen=True)
class Targets:
    """Masks of one image. classes: int64 (M,), those that occur; masks: float32 (M, H, W); valid: float32 (1, H, W)."""

    classes: Tensor
    masks: Tensor
    valid: Tensor
    weight: Tensor


def targets_of(labels: Labels) -> list[Targets]:
    """One binary mask a class that occurs, for each image."""
    found = []
    for classes, weight in zip(labels.classes, labels.weights, strict=True):
        valid = classes != IGNORE
        present = torch.unique(classes[valid])
        masks = (classes == present[:, None, None]).float()
        found.append(Targets(present, masks, valid[None].float(), weight))
    return found


class Mask2FormerHead(SegmentationHead):
    """Masks and their classes from queries. InputError: fewer queries than classes."""

    def __init__(
        self,
        channels: int,
        classes: int,
        settings: Mask2FormerSettings | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        settings = settings or Mask2FormerSettings()
        if settings.queries < classes:
            raise InputError(f"mask2former: {settings.queries} queries cannot find {classes} classes. Raise queries")
        self.classes = classes
        self.decoder = MaskDecoder(channels, classes, settings)
        config = self.decoder.config
        self.loss_weights = {"class": config.class_weight, "mask": config.mask_weight, "dice": config.dice_weight}
        # In a tuple: only its matcher and its choice of points are used, and its buffer is no part of our state.
        self._criterion = (Mask2FormerLoss(config, {}),)
        weights = (*checked_class_weights(class_weights, classes), settings.no_object_weight)
        self.units = [round(weight * UNITS) for weight in weights]  #: of each class, and of no object

    def forward(self, features: Sequence[Tensor]) -> dict[str, Any]:
        classes, masks = self.decoder(features)
        return {"class_logits": classes, "mask_logits": masks}

    def counts(self, labels: Labels) -> dict[str, Tensor]:
        """Masks, and the weights of all queries' targets in thousandths; images without any label do not count."""
        presents = [torch.unique(classes[classes != IGNORE]) for classes in labels.classes]
        queries = int(self.decoder.config.num_queries)
        weights = torch.tensor(self.units, device=labels.classes.device)
        units = [
            weights[present].sum() + weights[-1] * (queries - len(present)) for present in presents if len(present)
        ]
        nothing = weights.new_zeros(())
        masks = nothing + sum(len(present) for present in presents)
        return {"class": torch.stack(units).sum() if units else nothing, "mask": masks, "dice": masks}

    def losses(self, outputs: dict[str, Any], labels: Labels) -> dict[str, LossSum]:
        """Summed over the start and all layers, as deep supervision does; counted once."""
        targets = targets_of(labels)
        labelled = [number for number, target in enumerate(targets) if len(target.classes)]
        targets = [targets[number] for number in labelled]
        totals = {name: labels.weights.new_zeros(()) for name in self.loss_weights}
        for class_logits, mask_logits in zip(outputs["class_logits"], outputs["mask_logits"], strict=True):
            # Every output takes part, if only with 0: an image without labels must not leave a rank without gradients.
            totals["class"] = totals["class"] + (class_logits.sum() + mask_logits.sum()) * 0
            if labelled:
                parts = self._layer(class_logits[labelled].float(), mask_logits[labelled].float(), targets)
                totals = {name: totals[name] + parts[name] for name in totals}
        counts = self.counts(labels)
        return {name: LossSum(total, counts[name]) for name, total in totals.items()}

    def _layer(self, class_logits: Tensor, mask_logits: Tensor, targets: list[Targets]) -> dict[str, Tensor]:
        matched = self._criterion[0].matcher(
            mask_logits, class_logits, [t.masks for t in targets], [t.classes for t in targets]
        )
        matched = [(queries.to(mask_logits.device), masks.to(mask_logits.device)) for queries, masks in matched]
        mask, dice = self._mask_sums(mask_logits, targets, matched)
        return {"class": self._class_sum(class_logits, targets, matched), "mask": mask, "dice": dice}

    def _class_sum(self, logits: Tensor, targets: list[Targets], matched: list[tuple[Tensor, Tensor]]) -> Tensor:
        wanted = torch.full(logits.shape[:2], self.classes, dtype=torch.int64, device=logits.device)
        for number, (target, (queries, masks)) in enumerate(zip(targets, matched, strict=True)):
            wanted[number, queries] = target.classes[masks]
        weights = torch.tensor(self.units, dtype=logits.dtype, device=logits.device)
        terms = F.cross_entropy(logits.transpose(1, 2), wanted, weights, reduction="none")  # (B, Q)
        return (terms.sum(1) * torch.stack([target.weight for target in targets])).sum()

    def _mask_sums(
        self, logits: Tensor, targets: list[Targets], matched: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy (mean over valid points) and dice loss of each matched mask, summed."""
        criterion = self._criterion[0]
        predicted = torch.cat([logits[number, queries] for number, (queries, _) in enumerate(matched)])[:, None]
        masks = torch.cat([target.masks[places] for target, (_, places) in zip(targets, matched, strict=True)])[:, None]
        valid = torch.cat([t.valid.expand(len(p), -1, -1) for t, (_, p) in zip(targets, matched, strict=True)])[:, None]
        weights = torch.cat([t.weight.expand(len(p)) for t, (_, p) in zip(targets, matched, strict=True)])
        with torch.no_grad():
            points = criterion.sample_points_using_uncertainty(
                predicted,
                criterion.calculate_uncertainty,
                criterion.num_points,
                criterion.oversample_ratio,  # pyright: ignore[reportArgumentType] - annotated int there, a float it is
                criterion.importance_sample_ratio,
            )
            truth = sample_point(masks, points, align_corners=False).squeeze(1)  # (M, points)
            counted = sample_point(valid, points, mode="nearest", align_corners=False).squeeze(1)
        guess = sample_point(predicted, points, align_corners=False).squeeze(1)
        entropy = F.binary_cross_entropy_with_logits(guess, truth, reduction="none")
        mask = (entropy * counted).sum(1) / counted.sum(1).clamp_min(1)
        share, truth = guess.sigmoid() * counted, truth * counted
        dice = 1 - (2 * (share * truth).sum(1) + 1) / (share.sum(1) + truth.sum(1) + 1)
        return (mask * weights).sum(), (dice * weights).sum()

    def scores(self, outputs: dict[str, Any], size: tuple[int, int]) -> Tensor:
        """sum over queries of softmax(class) * sigmoid(mask), divided by its sum over the classes."""
        classes = outputs["class_logits"][-1].float().softmax(-1)[..., :-1]
        masks = enlarged(outputs["mask_logits"][-1], size).sigmoid()
        scores = torch.einsum("bqk,bqhw->bkhw", classes, masks)
        return scores / scores.sum(1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)

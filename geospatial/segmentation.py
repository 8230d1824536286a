"""Training of a segmentation model on windows of rasters: losses, counts, and mIoU over the whole validation set.

A family derives its stages from `SegmentationTraining` and says how its model is run (`run`), and what it adds to the
loss. Batches are those of `geospatial.window_transform`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from geospatial.class_masks import IGNORE
from geospatial.confusion import confusion_matrix, scores
from geospatial.raster_data import RasterData
from geospatial.segmentation_head import Labels, SegmentationHead
from geospatial.validation_probe import refuse_nothing_to_validate
from mmzoo.errors import InputError
from mmzoo.training.loss_sums import Count, LossSum, WeightedLoss
from mmzoo.training.module import ZooModule
from mmzoo.training.optimizers import OptimizerSettings

#: In the log: what the source domain's validation is called, and the target domains', which no choice depends on.
LOG_NAMES = {"source": "val", "target": "val_target"}


class SegmentationTraining(ZooModule):
    """A model with a `SegmentationHead`, trained on labelled windows.

    class_names: in the order of the head's outputs. select_by: whose validation mIoU `best` is chosen by; "target"
    chooses by labels that a domain-generalisation study must not look at, so it has to be asked for.
    """

    best_metric: ClassVar[tuple[str, Literal["min", "max"]] | None] = ("val/miou", "max")

    def __init__(
        self,
        class_names: Sequence[str],
        select_by: Literal["source", "target"] = "source",
        optimizer: OptimizerSettings | None = None,
    ) -> None:
        super().__init__(optimizer)
        if select_by not in LOG_NAMES:
            raise InputError(f"select_by is {select_by!r}; it must be source or target")
        self.select_by = select_by
        self.class_names = tuple(class_names)
        # An attribute of the instance hides that of the class.
        self.best_metric = (f"{LOG_NAMES[select_by]}/miou", "max")  # pyright: ignore[reportAttributeAccessIssue]
        self.matrices: dict[str, np.ndarray] = {}

    # What a family writes

    @property
    def head(self) -> SegmentationHead:
        """The head of the model."""
        raise NotImplementedError

    def run(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """(outputs of the head, what else the model tells) for a batch."""
        raise NotImplementedError

    def further_losses(self, told: Any) -> WeightedLoss | None:  # noqa: ARG002
        """Parts that do not come from the labels, from what `run` told."""
        return None

    def further_counts(self, batch: Mapping[str, Any]) -> Mapping[str, Count]:  # noqa: ARG002
        """Their counts, from the batch alone."""
        return {}

    # Training

    def loss_counts(self, batch: Mapping[str, Any]) -> Mapping[str, Count]:
        """Terms of each part of the loss."""
        return {**self.head.counts(labels_of(batch)), **self.further_counts(batch)}

    def losses(self, batch: Mapping[str, Any], turn: str) -> WeightedLoss:  # noqa: ARG002
        """The head's parts and the family's own."""
        labels = labels_of(batch)
        if not len(labels.classes):
            return self._nothing(batch)
        outputs, told = self.run(batch)
        parts, weights = self.head.losses(outputs, labels), dict(self.head.loss_weights)
        further = self.further_losses(told)
        if further is not None:
            parts, weights = {**parts, **further.parts}, {**weights, **further.weights}
        return WeightedLoss(parts, weights)

    def _nothing(self, batch: Mapping[str, Any]) -> WeightedLoss:
        """The loss of a batch whose samples are all broken: 0, with gradients of 0 so that ranks stay in step."""
        zero = torch.stack([p.sum() * 0 for p in self.parameters() if p.requires_grad]).sum()
        counts = self.loss_counts(batch)
        return WeightedLoss({name: LossSum(zero, count) for name, count in counts.items()}, dict.fromkeys(counts, 1.0))

    # Validation

    def on_fit_start(self) -> None:
        """Refuses data with other classes than the model's, and a choice by a domain that they do not have, or that
        has nothing to choose by.
        """
        table = getattr(self.trainer.datamodule, "table", None)  # pyright: ignore[reportAttributeAccessIssue]
        if table is not None and tuple(table.names) != self.class_names:
            raise InputError(
                f"the model's classes are {', '.join(self.class_names)} and the data's {', '.join(table.names)}. "
                f"Give both sections the same classes, in one order"
            )
        roles = {source.role for source in getattr(self.trainer.datamodule, "sources", ())}  # pyright: ignore[reportAttributeAccessIssue]
        if self.select_by == "target" and roles == {"source"}:
            raise InputError(
                "select_by is target, and no source of the data has role: target. Mark one, or select by source"
            )
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(data, RasterData):
            refuse_nothing_to_validate(data.open_index(), self.select_by)

    def on_validation_epoch_start(self) -> None:
        """A fresh start."""
        self.matrices = {}

    def validation_step(self, batch: Mapping[str, Any], _index: int) -> None:
        """Adds the batch to the confusion matrix of its domain; logs the log-loss of the labels (nats)."""
        labels = labels_of(batch)
        if not len(labels.classes):
            return
        outputs, _ = self.run(batch)
        found = self.head.scores(outputs, (labels.classes.shape[-2], labels.classes.shape[-1]))
        if not bool(found.isfinite().all()):  # the largest of scores that are no numbers is a class like any other
            raise InputError(
                f"the model's scores are not finite numbers for {batch['sample_ids'][0]} or a sample beside it: its "
                f"weights have diverged, or its input is far from what it was trained on. Take another checkpoint"
            )
        predictions = found.argmax(1)
        for role, name in LOG_NAMES.items():
            rows = [number for number, own in enumerate(batch["role"]) if own == role]
            if not rows:
                continue
            self._count(role, labels.classes[rows], predictions[rows])
            loss = log_loss(found[rows], labels.classes[rows])
            self.log_ratio(f"{name}/log_loss", loss.sum, loss.count)
        self._show(batch, labels.classes, predictions)

    test_step = validation_step

    def _count(self, role: str, labels: Tensor, predictions: Tensor) -> None:
        pair = [values.to(torch.uint8).cpu().numpy() for values in (labels, predictions)]
        matrix = confusion_matrix(pair[0], pair[1], len(self.class_names))
        self.matrices[role] = self.matrices.get(role, 0) + matrix

    def _show(self, batch: Mapping[str, Any], labels: Tensor, predictions: Tensor) -> None:
        image = batch["image"].float().mean(1, keepdim=True)
        low, high = image.flatten(1).quantile(0.02, dim=1), image.flatten(1).quantile(0.98, dim=1)
        grey = ((image - low.view(-1, 1, 1, 1)) / (high - low).clamp_min(1e-12).view(-1, 1, 1, 1)).clamp(0, 1)
        colours = class_colours(len(self.class_names)).to(image.device)
        shown = [colours[values.clamp(max=len(self.class_names))].movedim(-1, 1) for values in (labels, predictions)]
        self.show_images("val/segmentation", grey.expand(-1, 3, -1, -1), *shown)

    def log_evaluation(self) -> None:
        """Logs the scores over all batches and ranks; see geospatial.confusion for absent classes."""
        super().log_evaluation()
        classes = len(self.class_names)
        for role, name in LOG_NAMES.items():
            own = self.matrices.get(role, np.zeros((classes, classes), np.int64))
            summed = self.trainer.strategy.reduce(torch.from_numpy(own).to(self.device), reduce_op="sum")
            for key, value in scores(torch.as_tensor(summed).cpu().numpy(), self.class_names).items():
                self.log_equal(f"{name}/{key}", value, prog_bar=key == "miou")
        self.matrices = {}


def labels_of(batch: Mapping[str, Any]) -> Labels:
    """The labels and weights of a batch."""
    return Labels(batch["labels"], batch["weight"].float())


def log_loss(probabilities: Tensor, labels: Tensor) -> LossSum:
    """-ln of the probability (B, K, H, W) of each pixel's label (B, H, W), summed over labelled pixels, unweighted."""
    known = labels != IGNORE
    picked = probabilities.gather(1, torch.where(known, labels, 0)[:, None])[:, 0]
    terms = -picked.clamp_min(torch.finfo(picked.dtype).tiny).log() * known
    return LossSum(terms.sum(), known.sum())


def class_colours(classes: int) -> Tensor:
    """float32 (K + 1, 3) in [0, 1]: colours far apart in hue and lightness, and black for unlabelled pixels."""
    import colorsys

    golden = 0.618034
    colours = [
        colorsys.hls_to_rgb((0.58 + golden * number) % 1, 0.45 + 0.2 * (number % 2), 0.65) for number in range(classes)
    ]
    return torch.tensor([*colours, (0.0, 0.0, 0.0)])

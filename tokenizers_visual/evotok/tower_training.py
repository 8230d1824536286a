"""What every small teacher is: a tower of EvoTok's encoder sizes under a linear classifier over mean features."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SiglipVisionModel

from data_engine.index import ShardIndex
from mmzoo.errors import InputError
from mmzoo.families import get_variant
from mmzoo.training.data_module import ShardData
from mmzoo.training.loss_sums import LossSum, WeightedLoss
from mmzoo.training.module import ZooModule
from mmzoo.training.optimizers import OptimizerSettings
from tokenizers_visual.evotok.configuration import checked_config
from tokenizers_visual.evotok.processing import EvoTokImageProcessor


class TowerTraining(ZooModule):
    """Classification with a vision tower, so that the tokenizer may start from it and take its features as target.

    variant, overrides: the EvoTok whose encoder the tower must match. What is saved under `model/` is a plain
    transformers SiglipVisionModel; the classifier stays in `trainer.ckpt`. A stage sets `classifier` in
    `configure_model` and answers `classes_of`.
    """

    def __init__(
        self,
        variant: str = "evotok/tiny",
        overrides: dict[str, Any] | None = None,
        optimizer: OptimizerSettings | None = None,
    ) -> None:
        super().__init__(optimizer)
        family, name = get_variant(variant)
        config = checked_config({**family.variants[name], **(overrides or {})}, "model.overrides")
        tower = SiglipVisionModel(config.encoder_config())
        # The pooling head is part of the tower's layout; nothing here reads it, so nothing may move it.
        tower.head.requires_grad_(False)
        self.model = tower
        self.processor = EvoTokImageProcessor(image_size=config.image_size)
        self.classifier: nn.Linear | None = None

    def shard_index(self) -> ShardIndex:
        """The index of the run's shards, which tells the classes before the first batch. InputError: other data."""
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        index = data.open_index() if isinstance(data, ShardData) else None
        if not isinstance(index, ShardIndex):
            raise InputError("teacher training needs data.class_path: mmzoo.training.data_module.ShardData.")
        return index

    def classes_of(self, batch: dict[str, Any]) -> Tensor:
        """int64 (B,): the class of each image of a training batch."""
        raise NotImplementedError

    def features(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [-1, 1] -> (B, C): the mean over tokens of the last layer."""
        return self.model(images.clamp(-1.0, 1.0)).last_hidden_state.mean(1)

    def logits(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [-1, 1] -> (B, classes)."""
        assert self.classifier is not None
        return self.classifier(self.features(images))

    def loss_counts(self, batch: dict[str, Any]) -> dict[str, int]:
        """One term an image."""
        return {"cross_entropy": len(batch["sample_ids"])}

    def losses(self, batch: dict[str, Any], turn: str) -> WeightedLoss:  # noqa: ARG002
        """batch["image"] (B, 3, H, W) in [-1, 1] and its sample_ids -> cross-entropy over the classes."""
        logits, classes = self.logits(batch["image"]), self.classes_of(batch)
        self.log_ratio("train/accuracy", (logits.argmax(1) == classes).sum(), len(classes))
        return WeightedLoss.of(
            LossSum(F.cross_entropy(logits, classes, reduction="sum"), len(classes)), "cross_entropy"
        )

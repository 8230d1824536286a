"""Moves the data position forward, one optimiser step at a time."""

# ruff: noqa: ARG002 - a hook of Lightning is handed more than it needs
from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mmzoo.training.data_module import ShardData
from mmzoo.training.stepping import updates
from mmzoo.training.window import micro_batches


class DataPosition(Callback):
    """Counts batches as consumed when the optimiser has stepped on them; prefetched ones not."""

    def __init__(self) -> None:
        self._pending = 0
        self._updates = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pending, self._updates = 0, updates(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._pending += len(micro_batches(batch))
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if updates(trainer) > self._updates and isinstance(data, ShardData):
            data.position += self._pending * data.global_batch
            self._pending, self._updates = 0, updates(trainer)

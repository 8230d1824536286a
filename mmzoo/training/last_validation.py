"""Remembers the last validation of a run: at which step, on how many samples, with which metrics."""

# ruff: noqa: ARG002 - a hook of Lightning is handed more than it needs
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mmzoo.training.stepping import updates

PREFIX = "val/"  #: what every family calls its validation metrics


class LastValidation(Callback):
    """`metrics` (name -> value) of the validation after `step` updates, on `samples` samples over all ranks."""

    def __init__(self) -> None:
        self.step: int | None = None
        self.samples = 0
        self.metrics: dict[str, float] = {}
        self._seen = 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if isinstance(batch, Mapping):
            self._seen += len(batch.get("sample_ids", ()))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        seen = torch.tensor(self._seen, device=trainer.strategy.root_device)
        self.samples = int(trainer.strategy.reduce(seen, reduce_op="sum"))
        self.step = updates(trainer)
        self.metrics = {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(PREFIX)
        }

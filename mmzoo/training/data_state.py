"""Moves the data position forward, one optimiser step at a time, and keeps the record of it in the run folder.

`data_steps.json` lets `mmzoo data why` tell which samples any step consumed. An entry is added only where a resume
changed something, so its size does not grow with the steps.
"""

# ruff: noqa: ARG002 - a hook of Lightning is handed more than it needs
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from data_engine.steps import as_json
from mmzoo.durable_files import refused_writes_named, write_text
from mmzoo.training.data_module import ShardData
from mmzoo.training.run_files import DATA_STEPS_FILE
from mmzoo.training.stepping import batches_of_epoch, is_trial, updates
from mmzoo.training.window import accumulation, micro_batches


class DataPosition(Callback):
    """Counts batches as consumed when the optimiser has stepped on them; prefetched ones not."""

    def __init__(self) -> None:
        self._pending = 0
        self._updates = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pending, self._updates = 0, updates(trainer)
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if not isinstance(data, ShardData):
            return
        accumulate = accumulation(trainer)
        data.begin_stretch(self._updates, batches_of_epoch(trainer) * accumulate, accumulate, trainer.world_size)
        if trainer.is_global_zero and not is_trial(trainer):
            file = Path(trainer.default_root_dir) / DATA_STEPS_FILE
            with refused_writes_named(file):
                write_text(file, json.dumps(as_json(data.history), indent=1) + "\n")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._pending += len(micro_batches(batch))
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if updates(trainer) > self._updates and isinstance(data, ShardData):
            data.consume(self._pending)
            self._pending, self._updates = 0, updates(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(data, ShardData) and trainer.is_global_zero and not is_trial(trainer):
            data.report_consumed()

"""Which of several ways to compute the same thing a training takes, in its run.json: `computed_with`."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mmzoo.hub.model import chosen_methods
from mmzoo.training.run_record import RunRecord


class MethodsInRecord(Callback):
    """Asks the model once it lies on its device, under the precision that its steps run with."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.asked = False

    def _ask(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.asked:
            return
        self.asked = True
        with trainer.precision_plugin.forward_context():
            chosen = chosen_methods(getattr(pl_module, "model", None))
        if chosen:
            self.record.write(computed_with=chosen)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._ask(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._ask(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._ask(trainer, pl_module)

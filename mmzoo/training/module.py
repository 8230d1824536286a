"""The LightningModule that every family's training stage derives from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from transformers import PreTrainedModel

from mmzoo.errors import InputError
from mmzoo.training.optimizers import OptimizerSettings, build_optimizer


class ZooModule(LightningModule):
    """A model, its losses and its metrics. Families set `model` and `processor` and write the steps.

    Losses are sums with counts; `log_ratio` turns them into means that are exact over batches and ranks. Nothing calls
    `save_hyperparameters`: the config of a run lives in its run folder, and a checkpoint never overrides the user's.
    """

    #: The metric that `best` is chosen by, as logged in validation, and its direction; None = no best checkpoint.
    best_metric: ClassVar[tuple[str, Literal["min", "max"]] | None] = None
    #: A stage with more than one optimiser (GAN): strategies that can hold only one are refused by name.
    several_optimizers: ClassVar[bool] = False

    model: PreTrainedModel
    #: What turns an image into the model's input; saved beside the weights. None where there is none.
    processor: Any = None
    #: Public name of the model's sizes, "family/variant" and what was changed, for the model card.
    variant: str | None = None

    def __init__(self, optimizer: OptimizerSettings | None = None) -> None:
        super().__init__()
        self.optimizer_settings = optimizer or OptimizerSettings()
        self._ratios: dict[str, Tensor] = {}
        #: Where loaded weights came from, as plain dicts; they go into run.json.
        self.receipts: list[dict[str, Any]] = []

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's; weights that do not fit are the user's mistake (another config), so an InputError."""
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as fault:
            reason = " ".join(str(fault).split())
            raise InputError(f"the checkpoint was made with another model config: {reason[:600]}") from fault

    def configure_optimizers(self) -> Any:
        """One optimiser over all trainable parameters."""
        return build_optimizer(self, self.optimizer_settings, self.trainer.max_steps)

    def log_ratio(self, name: str, total: Tensor | float, count: Tensor | float, prog_bar: bool = False) -> None:
        """Logs total / count.

        In training: the value of this batch on this rank, per step. In evaluation: sum of totals / sum of counts over
        all batches and ranks, once at the end; a name that never got a count is not logged.
        """
        if self.trainer.training:
            value = torch.as_tensor(total).detach() / count
            self.log(name, value, on_step=True, on_epoch=False, prog_bar=prog_bar)
            return
        pair = torch.stack(
            [torch.as_tensor(value, dtype=torch.float64, device=self.device).detach() for value in (total, count)]
        )
        self._ratios[name] = self._ratios[name] + pair if name in self._ratios else pair

    def log_evaluation(self) -> None:
        """Logs what `log_ratio` gathered in an evaluation epoch; called by the epoch-end hooks below."""
        gathered, self._ratios = self._ratios, {}
        names = sorted(gathered)
        if not names:
            return
        pairs = self.trainer.strategy.reduce(torch.stack([gathered[name] for name in names]), reduce_op="sum")
        for name, (total, count) in zip(names, pairs.tolist(), strict=True):
            if count:
                self.log(name, total / count, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Subclasses that override this call super() first."""
        self.log_evaluation()

    def on_test_epoch_end(self) -> None:
        """Subclasses that override this call super() first."""
        self.log_evaluation()

"""The LightningModule that every family's training stage derives from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from mmzoo.errors import InputError
from mmzoo.training.divergence import refuse_diverged_loss
from mmzoo.training.loss_sums import Count, WeightedLoss
from mmzoo.training.optimizers import OptimizerSettings, build_optimizer
from mmzoo.training.ratios import Ratios
from mmzoo.training.stepping import next_is_logged, updates
from mmzoo.training.strategies import let_turns_leave_out_parameters
from mmzoo.training.update import UpdateSettings, clip_gradients, run_update
from mmzoo.training.validation_images import ShownImages

#: Where Lightning keeps the count of updates in a checkpoint of a module that steps itself.
UPDATE_COUNT = "epoch_loop.manual_optimization.optim_step_progress"
#: Set many times in each step, by Lightning and by us, and neither parameters nor modules.
PLAIN_ATTRIBUTES = frozenset({"_current_fx_name", "gathering", "logs_this_update", "newest_loss", "updates_made"})


class ZooModule(LightningModule):
    """A model, its losses and its metrics. Families set `model` and `processor` and write `losses`, `loss_counts` and
    `validation_step`; one update of the weights (accumulation, clipping, schedules, several optimisers) is made here.

    Losses are sums with counts; `log_ratio` turns them into means that are exact over batches and ranks. Nothing calls
    `save_hyperparameters`: the config of a run lives in its run folder, and a checkpoint never overrides the user's.
    """

    #: The metric that `best` is chosen by, as logged in validation, and its direction; None = no best checkpoint.
    best_metric: ClassVar[tuple[str, Literal["min", "max"]] | None] = None
    #: Names of the optimisers, in the order in which they take their turn in each update. The first one's updates are
    #: what is counted as steps.
    turns: tuple[str, ...] = ("model",)
    #: Names of direct parts that the moving average leaves out: trained, but not what is published.
    not_averaged: ClassVar[tuple[str, ...]] = ()

    model: PreTrainedModel
    #: What turns an image into the model's input; saved beside the weights. None where there is none.
    processor: Any = None
    #: Public name of the model's sizes, "family/variant" and what was changed, for the model card.
    variant: str | None = None

    def __init__(self, optimizer: OptimizerSettings | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.optimizer_settings = optimizer or OptimizerSettings()
        self.update_settings = UpdateSettings()
        #: While `losses` runs: whether more micro-batches of the same turn follow before the weights change.
        self.gathering = False
        self._ratios = Ratios()
        #: Pictures of the running validation; see `show_images`.
        self.images = ShownImages()
        #: Updates since the start of training, without the one that is being made.
        self.updates_made = 0
        #: Whether numbers of the update that is being made are wanted: what they cost can be spared otherwise.
        self.logs_this_update = False
        #: This rank's share of the loss of the newest update; None before the first.
        self.newest_loss: Tensor | None = None
        #: Where loaded weights came from, as plain dicts; they go into run.json.
        self.receipts: list[dict[str, Any]] = []

    def __setattr__(self, name: str, value: Any) -> None:
        """As torch's, which looks through parameters, buffers and modules first; not for what can be none of them."""
        if name in PLAIN_ATTRIBUTES:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # What a family writes

    def losses(self, batch: Any, turn: str) -> WeightedLoss | None:
        """The loss of one micro-batch as sums and counts. None: no update of this turn's optimiser in this step."""
        raise NotImplementedError(f"{type(self).__name__} has no losses(batch, turn)")

    def loss_counts(self, batch: Any) -> Mapping[str, Count]:
        """How many terms each part of `losses` (of every turn) has for this micro-batch, told from the batch alone."""
        raise NotImplementedError(f"{type(self).__name__} has no loss_counts(batch)")

    def optimizer_for(self, turn: str) -> tuple[nn.Module, OptimizerSettings]:  # noqa: ARG002
        """What a turn's optimiser trains, and how. Modules with several turns override this."""
        return self, self.optimizer_settings

    def steps_of(self, turn: str) -> int:  # noqa: ARG002
        """How many updates a turn's schedule is made for; fewer where an optimiser begins late."""
        return self.trainer.max_steps

    # One update

    def training_step(self, batch: Any, _index: int) -> Tensor:
        """One update of the weights; returns this rank's share of the loss of the (first) optimiser."""
        self.updates_made = updates(self.trainer)
        self.logs_this_update = next_is_logged(self.trainer)
        self.newest_loss = loss = run_update(self, batch)
        if self.logs_this_update:
            self.log_ratio("train/loss", loss, 1 / self.trainer.world_size)
            values = self._ratios.take()
            refuse_diverged_loss(self.trainer, self.updates_made + 1, values)
            for name, value in values.items():
                self.log(name, value, prog_bar=name == "train/loss")
        return loss

    def configure_optimizers(self) -> Any:
        """One optimiser and schedule a turn; schedules count their own updates, up to `steps_of`."""
        return [build_optimizer(*self.optimizer_for(turn), self.steps_of(turn)) for turn in self.turns]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clips, once the gradients are whole and unscaled."""
        norm = clip_gradients(optimizer, self.update_settings)
        if norm is not None:
            turn = next(i for i, own in enumerate(self.trainer.optimizers) if own is optimizer)
            name = "train/grad_norm" if len(self.turns) == 1 else f"train/grad_norm_{self.turns[turn]}"
            self.log_ratio(name, norm, 1)

    def configure_callbacks(self) -> list[Callback]:
        """None of its own. The first of Lightning's hooks: here the trainer's accumulation and clipping become ours."""
        self.update_settings = UpdateSettings.taken_from(self.trainer)
        if len(self.turns) > 1:
            let_turns_leave_out_parameters(self.trainer.strategy)
        return []

    def teardown(self, stage: str) -> None:  # noqa: ARG002
        self.update_settings.give_back(self.trainer)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Subclasses that override this call super() first."""
        if updates(self.trainer) != self.updates_made + 1:
            raise RuntimeError(
                f"{type(self).__name__}.training_step changed no weights: write losses() and loss_counts() instead of "
                f"it, or call super().training_step()"
            )

    def with_newest_loss(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """`metrics` with the loss of the newest update, which only logged steps hand to Lightning: each call of `log`
        costs as much as a small update. With several ranks that of the last logged step stays, which is over all.
        """
        if self.newest_loss is None or self.trainer.world_size > 1:
            return dict(metrics)
        return {**metrics, "train/loss": float(self.newest_loss)}

    # Checkpoints and numbers

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a training whose steps were counted by Lightning: it would go on from step 0."""
        counted = checkpoint["loops"]["fit_loop"][UPDATE_COUNT]["total"]["completed"]
        if counted != checkpoint["global_step"]:
            raise InputError(
                "the checkpoint was made by an mmzoo that counted steps otherwise, and cannot be resumed. "
                "Start from its weights: --init_from"
            )

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's; weights that do not fit are the user's mistake (another config), so an InputError."""
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as fault:
            reason = " ".join(str(fault).split())
            raise InputError(f"the checkpoint was made with another model config: {reason[:600]}") from fault

    def log_ratio(self, name: str, total: Tensor | float, count: Tensor | float) -> None:
        """Logs sum of totals / sum of counts: in training over the micro-batches and ranks of the update, at logged
        steps; in evaluation over all batches and ranks, once at the end. A name that never got a count is not logged.
        """
        if self.logs_this_update or not self.trainer.training:
            self._ratios.add(name, total, count, self.device)

    def show_images(self, name: str, *columns: Tensor) -> None:
        """Pictures for the log, in validation: `columns` (B, 3, H, W) in [0, 1] each, one row a sample."""
        self.images.add(name, columns)

    def log_evaluation(self) -> None:
        """Logs what `log_ratio` gathered in an evaluation epoch; called by the epoch-end hooks below."""
        for name, value in self._ratios.take().items():
            self.log_equal(name, value, prog_bar=True)

    def log_equal(self, name: str, value: float, *, prog_bar: bool = False) -> None:
        """Logs, at the end of an evaluation, a value that all ranks hold alike; call it on all of them."""
        # The largest of equal values is exact, where Lightning's mean over three ranks would round.
        self.log(name, value, prog_bar=prog_bar, sync_dist=True, reduce_fx="max")

    def on_validation_epoch_end(self) -> None:
        """Subclasses that override this call super() first."""
        self.log_evaluation()

    def on_test_epoch_end(self) -> None:
        """Subclasses that override this call super() first."""
        self.log_evaluation()

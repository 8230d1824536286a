"""Saves a run as checkpoint folders, and resumes it from one exactly where it was."""

# ruff: noqa: ARG002 - a hook of Lightning is handed more than it needs
from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from mmzoo.durable_files import NoSpaceError, refused_writes_named, temporary_sibling
from mmzoo.errors import InputError, suggestion
from mmzoo.training import checkpoint_folder as layout
from mmzoo.training import rng_state
from mmzoo.training.checkpoint_folder import resolve_checkpoint
from mmzoo.training.data_module import ShardData
from mmzoo.training.disk_space import shortage
from mmzoo.training.divergence import refuse_diverged_metric, refuse_diverged_weights
from mmzoo.training.loggers import MetricsCsv, values_of_now
from mmzoo.training.model_record import model_record
from mmzoo.training.module import ZooModule
from mmzoo.training.stepping import is_last_update, is_trial, updates, validation_follows
from mmzoo.training.stop_signals import stopping
from mmzoo.training.weight_average import published_weights, trained_weights

__all__ = ["FolderCheckpoint", "initialise_from", "read_data_state", "resolve_checkpoint", "resume", "save_checkpoint"]


def save_checkpoint(trainer: Trainer, module: LightningModule, checkpoints: Path) -> Path:
    """Writes `checkpoints/step_XXXXXXXX`, whole or not at all; called by all ranks, written by the first.

    InputError when the system refuses to write: a full disk is for the user to mend.
    Sharded strategies (FSDP, DeepSpeed) will gather here what rank 0 does not hold.
    """
    final = checkpoints / layout.step_name(updates(trainer))
    states = _random_states(trainer)
    temporary = temporary_sibling(final)
    try:
        with refused_writes_named(final):
            if trainer.is_global_zero:
                temporary.mkdir(parents=True)
            with trained_weights(trainer, module):
                trainer.save_checkpoint(temporary / layout.TRAINER_FILE)
            if trainer.is_global_zero:
                rng_state.save(states, temporary / layout.RNG_FILE)
                _write_rest(trainer, module, temporary)
                _publish(trainer, temporary, final)
    finally:
        if trainer.is_global_zero:
            shutil.rmtree(temporary, ignore_errors=True)
    trainer.strategy.barrier("checkpoint")
    return final


def _publish(trainer: Trainer, temporary: Path, final: Path) -> None:
    layout.seal(temporary, updates(trainer))
    layout.publish(temporary, final)
    layout.point(final.parent, layout.LAST, final.name)


def _random_states(trainer: Trainer) -> list[dict[str, Tensor]]:
    """The random states of every rank (each rank must take part in the gathering)."""
    own = rng_state.capture()
    device = trainer.strategy.root_device
    gathered = {name: trainer.strategy.all_gather(state.to(device)) for name, state in own.items()}
    if trainer.world_size == 1:
        return [own]
    return [
        {name: states[rank].cpu().contiguous() for name, states in gathered.items()}
        for rank in range(trainer.world_size)
    ]


def _write_rest(trainer: Trainer, module: LightningModule, folder: Path) -> None:
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    state = data.data_state() if isinstance(data, ShardData) else {}
    (folder / layout.DATA_FILE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    config = Path(trainer.default_root_dir) / layout.CONFIG_FILE
    if config.is_file():
        shutil.copyfile(config, folder / layout.CONFIG_FILE)
    if isinstance(module, ZooModule):
        from mmzoo.hub.save import save_model

        record = model_record(trainer, module)
        with published_weights(trainer, module):
            save_model(module.model, folder / layout.MODEL_FOLDER, processor=module.processor, record=record)


def read_data_state(folder: Path) -> dict[str, Any]:
    """The data state of a verified checkpoint folder."""
    return json.loads((folder / layout.DATA_FILE).read_text(encoding="utf-8"))


class FolderCheckpoint(Checkpoint):
    """Saves checkpoint folders into `<run>/checkpoints`, with `last` and `best` links.

    every_n_steps: updates between two checkpoints (0: only the others). keep: how many to keep besides the best one.
    monitor: the validation metric that `best` is chosen by, mode: its direction (default: the module's `best_metric`).
    A checkpoint is also written when the metric improves, at the end of training and before a signal stops it.
    `resumed_from`: the folder that this run continues; its random states are put back when training starts.

    Where the disk has no room for it, a checkpoint is left out with a note and the run goes on; the earlier ones stay.
    Only the last one of a run cannot be left out: then the run fails. Time spent is logged as `save_seconds`.
    """

    def __init__(self, every_n_steps: int = 1000, keep: int = 3, monitor: str | None = None, mode: str = "min") -> None:
        if keep < 1 or every_n_steps < 0:
            raise InputError(
                f"checkpoint.keep must be at least 1 and every_n_steps 0 or more: {keep}, {every_n_steps}."
            )
        if mode not in ("min", "max"):
            raise InputError(f"checkpoint.mode is 'min' or 'max', not {mode!r}.")
        self.every_n_steps = every_n_steps
        self.keep = keep
        self.monitor = monitor
        self.mode = mode
        self.resumed_from: Path | None = None
        self.best_value: float | None = None
        self.best_name: str | None = None
        self._checkpoints = Path()
        self._saved_step = 0

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self.best_value, "best_name": self.best_name}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_value, self.best_name = state_dict["best_value"], state_dict["best_name"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._checkpoints = Path(trainer.default_root_dir) / "checkpoints"
        if self.monitor is None and stage == "fit" and isinstance(pl_module, ZooModule) and pl_module.best_metric:
            self.monitor, self.mode = pl_module.best_metric

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = updates(trainer)
        if self.resumed_from is None:
            return
        self._continue_best(trainer)
        # Last before the first batch: what ran since the start (building loaders, other callbacks) has drawn numbers.
        states = rng_state.load(self.resumed_from / layout.RNG_FILE, trainer.global_rank)
        if states is None:
            sys.stderr.write("note: more ranks than the checkpoint had; the new ones keep their fresh random states\n")
        else:
            rng_state.restore(states)

    def _continue_best(self, trainer: Trainer) -> None:
        """`best` as it was at the checkpoint; forgotten where this run folder does not hold it."""
        if self.best_name is None or not (self._checkpoints / self.best_name / layout.SEAL).is_file():
            self.best_value = self.best_name = None
        elif trainer.is_global_zero:
            layout.point(self._checkpoints, layout.BEST, self.best_name)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._due(trainer) and not validation_follows(trainer):
            self._save(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        before = self.best_value, self.best_name
        improved = self._improves(trainer)
        if improved or self._due(trainer):
            self._save(trainer, pl_module)
        if improved and self._saved_step != updates(trainer) and not is_trial(trainer):
            self.best_value, self.best_name = before  # left out for want of space
        elif improved and trainer.is_global_zero and self.best_name is not None:
            layout.point(self._checkpoints, layout.BEST, self.best_name)
            layout.prune(self._checkpoints, self.keep)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if updates(trainer) != self._saved_step:
            self._save(trainer, pl_module)

    def _due(self, trainer: Trainer) -> bool:
        step = updates(trainer)
        if step == self._saved_step:
            return False
        if stopping(trainer):
            return True
        return is_last_update(trainer) or bool(self.every_n_steps and step % self.every_n_steps == 0)

    def _improves(self, trainer: Trainer) -> bool:
        """Whether this validation is the best so far (then it is noted); a tie is not. InputError: no finite number."""
        if self.monitor is None:
            return False
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise InputError(
                f"the metric {self.monitor!r} was not logged in validation.{suggestion(self.monitor, metrics)}"
            )
        value = float(metrics[self.monitor])
        refuse_diverged_metric(trainer, updates(trainer), self.monitor, value)
        if self.best_value is not None and (
            value >= self.best_value if self.mode == "min" else value <= self.best_value
        ):
            return False
        self.best_value, self.best_name = value, layout.step_name(updates(trainer))
        return True

    def _save(self, trainer: Trainer, module: LightningModule) -> None:
        if is_trial(trainer):
            return
        start = time.perf_counter()
        refuse_diverged_weights(trainer, module, updates(trainer))
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCsv):
                logger.keep(values_of_now(trainer))
        try:
            self._check_space(trainer, module)
            save_checkpoint(trainer, module, self._checkpoints)
        except NoSpaceError as full:
            # With several ranks the others already wait for a save that does not come, unless all of them know.
            if stopping(trainer) or is_last_update(trainer) or (trainer.world_size > 1 and full.__cause__ is not None):
                raise
            if trainer.is_global_zero:
                sys.stderr.write(f"note: {full} Training goes on without this checkpoint; the earlier ones stay\n")
            return
        self._saved_step = updates(trainer)
        if trainer.is_global_zero:
            layout.prune(self._checkpoints, self.keep)
        for logger in trainer.loggers:
            logger.log_metrics({"save_seconds": time.perf_counter() - start})

    def _check_space(self, trainer: Trainer, module: LightningModule) -> None:
        """NoSpaceError, on all ranks alike, when the first one finds no room for the next checkpoint."""
        reason = shortage(trainer, module, self._checkpoints) if trainer.is_global_zero else None
        if reason := trainer.strategy.broadcast(reason):
            place = self._checkpoints / layout.step_name(updates(trainer))
            raise NoSpaceError(f"no room for {place}: {reason}. Free space, or lower checkpoint.keep.")


def resume(trainer: Trainer, module: LightningModule, data: LightningDataModule | None, checkpoint: Path) -> None:
    """Trains on from a verified checkpoint folder as if there had been no interruption (same number of ranks).

    The data module has loaded `read_data_state(checkpoint)` before.
    """
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, FolderCheckpoint):
            callback.resumed_from = checkpoint
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint / layout.TRAINER_FILE, weights_only=True)


def initialise_from(module: ZooModule, folder: str | Path) -> None:
    """Takes over the model's weights, and nothing else, from a checkpoint folder or a model folder; strictly.

    InputError: no model there, one of another family, or names and shapes that differ.
    """
    given = Path(folder)
    if not given.is_dir():
        raise InputError(f"--init_from: there is no folder {given}. Give a checkpoint or a model folder.")
    is_checkpoint = (given / layout.MODEL_FOLDER).is_dir() or (given / layout.TRAINER_FILE).exists()
    source = resolve_checkpoint(given) / layout.MODEL_FOLDER if is_checkpoint else given
    config = source / "config.json"
    if not config.is_file():
        raise InputError(f"--init_from: {source} holds no model (no config.json). Give a checkpoint or a model folder.")
    kind, wanted = json.loads(config.read_text(encoding="utf-8")).get("model_type"), module.model.config.model_type
    if kind != wanted:
        raise InputError(
            f"--init_from: {source} is a {kind!r} model, this config trains a {wanted!r} model. "
            f"Give a checkpoint or model folder of {wanted!r}, or a config that trains {kind!r}."
        )
    loaded = type(module.model).from_pretrained(str(source))
    _refuse_other_classes(loaded.config, module.model.config, source)
    try:
        module.model.load_state_dict(loaded.state_dict())
    except RuntimeError as fault:
        raise InputError(
            f"--init_from: {source} does not fit the model of this config: "
            f"{_differences(loaded.config, module.model)}. "
            f"Set model.init_args.variant and overrides to what it was trained with."
        ) from fault
    if (receipt := getattr(loaded, "load_receipt", None)) is not None:
        module.receipts.append({"init_from": str(source), "receipt": receipt.in_brief()})


def _refuse_other_classes(theirs: Any, ours: Any, source: Path) -> None:
    """InputError: as many outputs, but they mean something else, which no shape would tell."""
    if theirs.id2label == ours.id2label:
        return
    there, here = (", ".join(map(str, config.id2label.values())) for config in (theirs, ours))
    raise InputError(
        f"--init_from: {source} was trained on the classes {there}, this config on {here}. Give the config the same "
        f"classes in the same order, or take over less than the whole model (its encoder: model.init_args.encoder_from)"
    )


def _differences(config: Any, model: Any) -> str:
    """Where the configuration of loaded weights differs from that of the model which should take them."""
    theirs, ours = config.to_dict(), model.config.to_dict()
    left_out = ("transformers_version", "_name_or_path", "architectures", "dtype")
    names = [name for name in theirs if name not in left_out and theirs[name] != ours.get(name)]
    shown = ", ".join(f"{name} {theirs[name]} there, {ours.get(name)} here" for name in names[:4])
    return (
        shown + (f", and {len(names) - 4} more settings" if len(names) > 4 else "") or "its tensors have other shapes"
    )

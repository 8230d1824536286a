"""Stops a training that has diverged, before its weights take the place of sound ones.

The loss is looked at in logged steps, whose values are on the host anyway and the same on all ranks; the weights before
every save, so that neither `last` nor `best` ever points at weights that are not numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer

from mmzoo.errors import InputError
from mmzoo.training.checkpoint_folder import LAST

LOSS = "train/loss"


def refuse_diverged_loss(trainer: Trainer, step: int, values: Mapping[str, float]) -> None:
    """InputError when the loss of a logged step (`values`: the step's means over all ranks) is not a finite number."""
    loss = values.get(LOSS)
    if loss is None or math.isfinite(loss):
        return
    parts = [name for name, value in values.items() if name != LOSS and not math.isfinite(value)]
    terms = f" ({', '.join(f'{name} {values[name]}' for name in parts)})" if parts else ""
    raise InputError(f"the training diverged: {LOSS} is {loss} at step {step}{terms}. {_advice(trainer, step)}")


def refuse_diverged_weights(trainer: Trainer, module: LightningModule, step: int) -> None:
    """InputError, on all ranks alike, when a parameter holds anything but finite numbers."""
    bad = [name for name, parameter in module.named_parameters() if not bool(parameter.isfinite().all())]
    if not trainer.strategy.reduce_boolean_decision(bool(bad), all=False):
        return
    first = f", first {bad[0]}" if bad else " on another rank"
    raise InputError(
        f"the training diverged: at step {step} {len(bad)} parameters hold values that are not finite{first}; "
        f"no checkpoint of them is written. {_advice(trainer, step)}"
    )


def _advice(trainer: Trainer, step: int) -> str:
    run = Path(trainer.default_root_dir)
    last = run / "checkpoints" / LAST
    go_on = f"go on from {last.resolve()}" if last.exists() else "start again (there is no checkpoint yet)"
    return (
        f"Lower the learning rate or set trainer.gradient_clip_val, and {go_on}; "
        f"what the step was trained on: mmzoo data why {run} --step {step}"
    )

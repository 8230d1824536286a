"""Stops a training that has diverged, before its weights take the place of sound ones.

The loss and the gradient's norm are looked at in logged steps, whose values are on the host anyway and the same on all
ranks; the weights before every save, so that neither `last` nor `best` ever points at weights that are not numbers; the
metric that `best` is chosen by after every validation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer

from mmzoo.errors import InputError
from mmzoo.training.checkpoint_folder import LAST

LOSS, GRADIENT_NORM = "train/loss", "train/grad_norm"


def refuse_diverged_loss(trainer: Trainer, step: int, values: Mapping[str, float]) -> None:
    """InputError when a logged step's loss or gradient norm is not finite (`values`: its means over all ranks)."""
    watched = [name for name in values if name == LOSS or (name.startswith(GRADIENT_NORM) and not _scales(trainer))]
    bad = [name for name in sorted(watched, reverse=True) if not math.isfinite(values[name])]
    if not bad:
        return
    first, *_ = bad
    parts = [name for name, value in values.items() if name != first and not math.isfinite(value)]
    terms = f" ({', '.join(f'{name} {values[name]}' for name in parts)})" if parts else ""
    raise InputError(
        f"the training diverged: {first} is {values[first]} at step {step}{terms}. {_advice(trainer, step)}"
    )


def _scales(trainer: Trainer) -> bool:
    """Whether losses are scaled (fp16): steps of infinite gradients find the scale and are left out."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def refuse_diverged_weights(trainer: Trainer, module: LightningModule, step: int) -> None:
    """InputError, on all ranks alike, when a parameter is not finite or a buffer is NaN. One wait for the device."""
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    sound = {
        # Infinity in a buffer may be meant, as in a mask of attention.
        name: value.isfinite().all() if isinstance(value, torch.nn.Parameter) else ~value.isnan().any()
        for name, value in tensors.items()
        if value.is_floating_point() or value.is_complex()
    }
    answers = torch.stack([flag.to(module.device) for flag in sound.values()]).tolist() if sound else []
    bad = [name for name, is_sound in zip(sound, answers, strict=True) if not is_sound]
    if not trainer.strategy.reduce_boolean_decision(bool(bad), all=False):
        return
    found = f"{len(bad)} tensors of the model hold" if bad else "tensors of another rank's model hold"
    first = f", first {bad[0]}" if bad else ""
    raise InputError(
        f"the training diverged: after step {step} {found} values that are not finite{first}; "
        f"no checkpoint of them is written. {_advice(trainer, step)}"
    )


def refuse_diverged_metric(trainer: Trainer, step: int, name: str, value: float) -> None:
    """InputError when the validation metric that `best` is chosen by is not a finite number."""
    if not math.isfinite(value):
        raise InputError(
            f"the validation after step {step} gave {name} = {value}: the training diverged, or the validation data "
            f"have nothing to measure it on. {_advice(trainer, step)}"
        )


def _advice(trainer: Trainer, step: int) -> str:
    run = Path(trainer.default_root_dir)
    last = run / "checkpoints" / LAST
    go_on = f"go on from {last.resolve()} (--ckpt_path)" if last.exists() else "start again (there is no checkpoint)"
    return (
        f"Lower the learning rate or trainer.gradient_clip_val, and {go_on}; "
        f"what the step was trained on: mmzoo data why {run} --step {step}"
    )

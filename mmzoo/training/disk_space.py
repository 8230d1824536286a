"""Whether a checkpoint will fit on the disk, asked before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mmzoo.training import checkpoint_folder as layout

MARGIN = 1.02  #: a save grows a little: counters get longer, more metrics are logged
HEADERS = 256 * 2**10  #: names, configs and the card beside the tensors, in bytes


def tensor_bytes(values: Any) -> int:
    """Bytes of all tensors in nested dicts and lists; a storage that two of them share counts twice."""
    if isinstance(values, Tensor):
        return values.numel() * values.element_size()
    if isinstance(values, dict):
        return sum(map(tensor_bytes, values.values()))
    return sum(map(tensor_bytes, values)) if isinstance(values, list | tuple) else 0


def state_bytes(trainer: Trainer, module: LightningModule) -> int:
    """A first save, in bytes: the module's state, the model once more in Hub format, the optimisers, averaged weights.

    An optimiser that has not stepped yet is taken for Adam, two numbers a parameter.
    """
    whole = tensor_bytes(module.state_dict())
    model = getattr(module, "model", None)
    of_model = tensor_bytes(model.state_dict()) if isinstance(model, torch.nn.Module) else 0
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    of_callbacks = sum(tensor_bytes(callback.state_dict()) for callback in callbacks)
    return whole + of_model + of_callbacks + sum(map(_optimizer_bytes, trainer.optimizers))


def _optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    grown = tensor_bytes(list(optimizer.state.values()))
    parameters: Iterable[Tensor] = (p for group in optimizer.param_groups for p in group["params"])
    return grown or 2 * tensor_bytes(list(parameters))


def needed_bytes(trainer: Trainer, module: LightningModule, checkpoints: Path) -> int:
    """Bytes that the next checkpoint will take: those of the last one, or of the state when there is none."""
    earlier = layout.by_age(checkpoints)
    size = layout.size(earlier[-1]) if earlier else state_bytes(trainer, module) + HEADERS
    return int(size * MARGIN)


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write to the file system of a folder (or of its nearest parent that exists)."""
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


def shortage(trainer: Trainer, module: LightningModule, checkpoints: Path) -> str | None:
    """Why the next checkpoint will not fit, or None."""
    needed, free = needed_bytes(trainer, module, checkpoints), free_bytes(checkpoints)
    if free >= needed:
        return None
    return f"it needs {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free"

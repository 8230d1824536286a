"""What Lightning does in each step to no effect, left out: together it takes as long as a small model's forward pass.

Some fifty hooks that do nothing are called and profiled, every optimiser looks for a GPU where there is none, and
which methods the module and its data override is found out anew for each batch.
"""

# ruff: noqa: ARG002 - a hook of Lightning is handed more than it needs
from __future__ import annotations

import functools
import os
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

#: The hooks of every training step.
STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
#: Set by Lightning's import: torch then asks the driver's library, at each optimiser step, how many GPUs there are.
ASKS_THE_DRIVER = "PYTORCH_NVML_BASED_CUDA_CHECK"
_NOTHING: nullcontext[None] = nullcontext()


class Unprofiled(PassThroughProfiler):
    """Where `trainer.profiler` names none. Lightning's own enters a generator around every hook."""

    def profile(self, action_name: str) -> nullcontext[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _NOTHING


def leave_out_empty_hooks(callbacks: Iterable[Callback]) -> None:
    """Sets the step hooks that a callback does not have to None: Lightning passes over what it cannot call."""
    for callback in callbacks:
        for hook in STEP_HOOKS:
            if getattr(type(callback), hook) is getattr(Callback, hook) and hook not in vars(callback):
                setattr(callback, hook, None)


class AskedOnce(Callback):
    """While training runs, what depends on classes only is asked once and not in each step: which of module and data
    moves a batch to the device, whether there is validation data, and whether `training_step` takes an index.
    """

    def __init__(self) -> None:
        self._answering: list[tuple[object, str]] = []  #: objects and the name of what they remember

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._forget()
        loop = trainer.fit_loop.epoch_loop
        self._remember(trainer._data_connector._datahook_selector, "get_instance")
        self._remember(loop.val_loop._data_source, "is_defined")
        if is_param_in_hook_signature(pl_module.training_step, "batch_idx", min_args=2):
            self._put(loop, "_build_kwargs", _batch_and_index)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._forget()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._forget()

    def _remember(self, owner: object, name: str) -> None:
        self._put(owner, name, functools.cache(getattr(owner, name)))

    def _put(self, owner: object, name: str, function: Any) -> None:
        setattr(owner, name, function)
        self._answering.append((owner, name))

    def _forget(self) -> None:
        while self._answering:
            owner, name = self._answering.pop()
            delattr(owner, name)


def _batch_and_index(kwargs: OrderedDict[str, Any], batch: Any, batch_idx: int) -> OrderedDict[str, Any]:
    """What Lightning builds for a `training_step` with two arguments, whatever their names."""
    kwargs["batch"], kwargs["batch_idx"] = batch, batch_idx
    return kwargs


def stop_asking_for_gpus() -> None:
    """Where there is no GPU: without the variable torch knows that by itself, thirty times faster.

    With one it stays, for it keeps workers that were forked from being broken by the question.
    """
    if not torch.cuda.is_available():
        os.environ.pop(ASKS_THE_DRIVER, None)

"""What Lightning does in each step to no effect, left out: together it takes as long as a small model's forward pass.

Some fifty hooks that do nothing are called and profiled, and every optimiser looks for a GPU where there is none.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from contextlib import nullcontext
from types import FunctionType

import torch
from lightning.pytorch import Callback
from lightning.pytorch.profilers import PassThroughProfiler

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

    def profile(self, action_name: str) -> nullcontext[None]:  # noqa: ARG002  # pyright: ignore[reportIncompatibleMethodOverride]
        return _NOTHING


def leave_out_empty_hooks(callbacks: Iterable[Callback]) -> None:
    """Sets the step hooks that a callback does not have to None: Lightning passes over what it cannot call."""
    for callback in callbacks:
        for hook in STEP_HOOKS:
            if getattr(type(callback), hook) is getattr(Callback, hook) and hook not in vars(callback):
                setattr(callback, hook, None)


def remember_signature(function: FunctionType) -> None:
    """Lightning inspects `training_step` at each step: with its signature at hand that is five times faster."""
    function.__signature__ = inspect.signature(function)  # pyright: ignore[reportFunctionMemberAccess]


def stop_asking_for_gpus() -> None:
    """Where there is no GPU: without the variable torch knows that by itself, thirty times faster.

    With one it stays, for it keeps workers that were forked from being broken by the question.
    """
    if not torch.cuda.is_available():
        os.environ.pop(ASKS_THE_DRIVER, None)

"""Combinations of strategy, device and model that cannot work, refused by name before anything is built."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, Strategy

from mmzoo.errors import InputError


def check_strategy(strategy: Any, accelerator: Any, several_optimizers: bool, module_name: str) -> None:
    """`strategy`, `accelerator`: as in the trainer config (text or a class entry). InputError for what cannot be."""
    name = strategy if isinstance(strategy, str) else str(getattr(strategy, "class_path", strategy))
    if "deepspeed" not in name.lower():
        return
    if several_optimizers:
        raise InputError(f"trainer.strategy: DeepSpeed takes one optimiser, {module_name} has several. Try: ddp")
    if accelerator == "cpu" or not torch.cuda.is_available():
        raise InputError("trainer.strategy: DeepSpeed does not run on CPU. Try: ddp")


def let_turns_leave_out_parameters(strategy: Strategy) -> None:
    """For modules whose optimisers take turns: DDP must not wait for gradients of parameters whose turn it is not."""
    if isinstance(strategy, DDPStrategy):
        strategy._ddp_kwargs["find_unused_parameters"] = True

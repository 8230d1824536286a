"""Combinations of strategy, device and model that cannot work, refused by name before anything is built."""

from __future__ import annotations

from typing import Any

import torch

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

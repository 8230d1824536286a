"""What a training can run on. Combinations that cannot work are refused by name before anything is built.

The same as a table, with a test a cell: docs/training.md.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, Strategy

from mmzoo.errors import InputError, suggestion

ACCELERATORS = ("auto", "cpu", "gpu", "cuda")
#: As Lightning spells them, and the short forms that it takes for the same.
PRECISIONS = ("32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16")
HALF = ("16-mixed", "16")
#: Parts of strategy names whose ranks hold different parts of the weights.
SHARDED = ("fsdp", "modelparallel", "model_parallel")


def check_support(trainer: Any, turns: tuple[str, ...], module_name: str, fused: bool) -> None:
    """`trainer`: the trainer section (strategy, accelerator, precision as text, numbers or class entries).

    InputError for what is not supported, in the order accelerator, precision, strategy.
    """
    on_cpu = trainer.accelerator == "cpu" or not torch.cuda.is_available()
    if isinstance(trainer.accelerator, str) and trainer.accelerator not in ACCELERATORS:
        near = suggestion(trainer.accelerator, ACCELERATORS)
        raise InputError(f"trainer.accelerator: {trainer.accelerator} is not supported.{near} Use cpu or gpu")
    _check_precision(trainer.precision, on_cpu, fused)
    _check_strategy(trainer.strategy, on_cpu, turns, module_name)


def _check_precision(given: Any, on_cpu: bool, fused: bool) -> None:
    precision = "32-true" if given is None else str(given)
    if precision in PRECISIONS and precision not in HALF:
        return
    if precision not in PRECISIONS:
        why = "is not supported: the weights stay in float32, or small updates are rounded away"
        raise InputError(f"trainer.precision: {precision} {why}. Use 32-true, bf16-mixed or, on a GPU, 16-mixed")
    if on_cpu:
        raise InputError(f"trainer.precision: {precision} needs a GPU. On a CPU use bf16-mixed")
    if fused:
        raise InputError(
            f"trainer.precision: with {precision} a fused optimiser unscales gradients itself, after clipping. "
            f"Use bf16-mixed, or set optimizer.fused to false"
        )


def _check_strategy(strategy: Any, on_cpu: bool, turns: tuple[str, ...], module_name: str) -> None:
    name = (strategy if isinstance(strategy, str) else str(getattr(strategy, "class_path", strategy))).lower()
    if any(part in name for part in SHARDED):
        raise InputError(
            f"trainer.strategy: {strategy if isinstance(strategy, str) else name} splits the weights over ranks, and "
            f"such weights cannot be gathered into a checkpoint folder yet. Use ddp"
        )
    if "deepspeed" not in name:
        return
    if len(turns) > 1:
        raise InputError(f"trainer.strategy: DeepSpeed takes one optimiser, {module_name} has several. Use ddp")
    if on_cpu:
        raise InputError("trainer.strategy: DeepSpeed does not run on CPU. Use ddp")
    raise InputError(
        "trainer.strategy: DeepSpeed divides accumulated batches itself, as means of means, and weights that it splits "
        "cannot be gathered into a checkpoint folder yet. Use ddp"
    )


def let_turns_leave_out_parameters(strategy: Strategy) -> None:
    """For modules whose optimisers take turns: DDP must not wait for gradients of parameters whose turn it is not."""
    if isinstance(strategy, DDPStrategy):
        strategy._ddp_kwargs["find_unused_parameters"] = True

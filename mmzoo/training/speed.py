"""Switches that change what a step costs, not what it learns: the order of wrapping is checkpointing, then compiling.

Both need to know what a model is built of. transformers has a name for it that models keep for sharding anyway: the
classes of its repeated blocks, `_no_split_modules`.
"""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from mmzoo.errors import InputError, suggestion


@dataclass(frozen=True)
class SpeedSettings:
    """gradient_checkpointing: blocks forget their activations and compute them again for the gradient. compile: by
    torch.compile with `compile_backend`. channels_last: convolutions keep images as (H, W, C) in memory.
    """

    gradient_checkpointing: bool = False
    compile: bool = False
    compile_backend: str = "inductor"
    channels_last: bool = False

    def __post_init__(self) -> None:
        if not self.compile:
            return  # asking torch for its backends takes a second
        name, known = self.compile_backend, torch.compiler.list_backends(exclude_tags=())
        if name not in known:
            raise InputError(f"speed.compile_backend: torch has no {name!r}.{suggestion(name, known)}")
        if name == "inductor" and not _has_compiler():
            raise InputError("speed.compile needs a C++ compiler. Try: apt install g++")

    def apply(self, model: PreTrainedModel) -> None:
        """Prepares `model`, in place; its weights and their names stay. InputError where it has no such parts."""
        if self.channels_last:
            to_channels_last(model)
        if self.gradient_checkpointing:
            for block in blocks(model, "gradient_checkpointing"):
                forget_activations(block)
        if self.compile:
            for part in parts_with_blocks(model):
                part.compile(backend=self.compile_backend)


def _has_compiler() -> bool:
    return torch.cuda.is_available() or any(map(shutil.which, ("g++", "clang++", "c++")))


def blocks(model: PreTrainedModel, switch: str) -> list[nn.Module]:
    """The repeated blocks of a model, in its order."""
    names = set(model._no_split_modules or ())
    found = [module for module in model.modules() if type(module).__name__ in names]
    if not found:
        raise InputError(
            f"speed.{switch}: {type(model).__name__} names no blocks (_no_split_modules). Set it to false."
        )
    return found


def parts_with_blocks(model: PreTrainedModel) -> list[nn.Module]:
    """The model's direct parts that hold blocks: each becomes one compiled graph, what lies between stays as it is."""
    inside = set(blocks(model, "compile"))
    return [part for part in model.children() if any(module in inside for module in part.modules())]


def forget_activations(block: nn.Module) -> None:
    """Lets `block` keep its inputs only, and compute again what its gradient needs."""
    forward = block.forward

    @functools.wraps(forward)
    def forward_twice(*arguments: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **options)
        return checkpoint(forward, *arguments, use_reentrant=False, **options)

    block.forward = forward_twice


def to_channels_last(model: PreTrainedModel) -> None:
    """Weights of 2D convolutions as (out, H, W, in) in memory; what they compute follows."""
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    if not convolutions:
        raise InputError(f"speed.channels_last: {type(model).__name__} has no 2D convolutions. Set it to false.")
    for convolution in convolutions:
        convolution.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

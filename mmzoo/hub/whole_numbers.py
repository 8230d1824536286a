"""Gives whole-number buffers back what transformers casts: its `dtype=` turns counters and masks into floats too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open

from mmzoo.hub.weights import Stored, kind_of


def restore_whole_numbers(model: torch.nn.Module, folder: Path, stored: Mapping[str, Stored]) -> None:
    """Buffers that are whole numbers or truth values in the model's class and in the file become so again, unrounded.

    `model` was just loaded from `folder`; `stored`: see weights.stored_tensors. What is a float in the class stays as
    it is, for the caller to refuse.
    """
    cast = [
        name
        for name, buffer in model.named_buffers()
        if name in stored and stored[name].kind in ("int", "bool") and buffer.is_floating_point()
    ]
    if not cast:
        return
    with torch.device("meta"):
        built = dict(type(model)(model.config).named_buffers())  # pyright: ignore[reportCallIssue]
    for name in cast:
        if kind_of(built[name].dtype) != stored[name].kind:
            continue
        with safe_open(folder / stored[name].file, framework="pt") as content:
            exact = content.get_tensor(name)
        owner, _, leaf = name.rpartition(".")
        module, device = model.get_submodule(owner), model.get_buffer(name).device
        setattr(module, leaf, exact.to(device=device, dtype=built[name].dtype))

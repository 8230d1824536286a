"""Weights of networks that no package brings along, as torchvision and others publish them: found, checked, read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmzoo.durable_files import sha256_of
from mmzoo.errors import InputError


def cached_weights(file_name: str) -> Path:
    """Where torch's cache keeps a file, whether or not it is there."""
    return Path(torch.hub.get_dir()) / "checkpoints" / file_name


def checked_sha256(file: Path) -> str:
    """sha256 (hex) of a file. InputError where its name says otherwise: torch's names end in how the sha256 begins."""
    found, told = sha256_of(file), re.search(r"-([0-9a-f]{8})\.\w+$", file.name)
    if told and not found.startswith(told[1]):
        raise InputError(f"{file} is damaged: its sha256 begins with {found[:8]}. Fetch it again.")
    return found


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file by name; no code in it is run. InputError when it is damaged."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    # torch, pickle, zipfile and safetensors each raise their own types for a damaged file.
    except Exception as fault:
        raise InputError(f"{file} cannot be read as weights ({type(fault).__name__}). Fetch it again.") from fault
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{file} holds no weights by name. Give the state dict of the network.")
    return state

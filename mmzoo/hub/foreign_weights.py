"""Reads weights that others saved: a file of tensors in, a checked dictionary of tensors out."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmzoo.errors import InputError

#: Where trainers keep the weights in a .pt file; the first one that holds any is taken.
STATE_KEYS = ("ema", "model", "state_dict")
NAMES_SHOWN = 3


def read_weights(file: Path) -> dict[str, Any]:
    """Tensors of a .safetensors, .pt or .pth file; pickles only through torch's weights-only reader.

    InputError: no such file, damaged, no tensors in it, or values that are not a number (NaN).
    """
    if not file.is_file():
        raise InputError(f"there is no weights file {file}. Give a .safetensors, .pt or .pth file.")
    content = _read(file)
    if not isinstance(content, Mapping):
        raise InputError(f"{file} holds no dictionary of tensors. Save the plain state_dict of the model.")
    state, place = _state_of(content, file)
    others = [f"{name} ({type(value).__name__})" for name, value in state.items() if not _is_tensor(value)]
    if others:
        raise InputError(
            f"{file}{place} holds other things than tensors: {_some(others)}. Save the plain state_dict of the model."
        )
    odd = [repr(name) for name in state if not isinstance(name, str)]
    if odd:
        raise InputError(f"{file}{place} names tensors by other things than text: {_some(odd)}. Save a state_dict.")
    sparse = [name for name, tensor in state.items() if tensor.layout is not _strided()]
    if sparse:
        raise InputError(f"{file}{place} holds sparse tensors: {_some(sparse)}. Save them with .to_dense().")
    refuse_nan(state, f"{file}{place}")
    return dict(state)


def refuse_nan(state: Mapping[str, Any], where: str) -> None:
    """InputError when a tensor holds NaN: such weights came from a run that had failed."""
    wrong = [name for name, tensor in state.items() if tensor.is_floating_point() and bool(tensor.isnan().any())]
    if wrong:
        raise InputError(f"{where} holds NaN in {_some(wrong)}. Take weights from before the run failed.")


def _read(file: Path) -> Any:
    import torch
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as fault:
        raise InputError(
            f"{file} cannot be read as weights: it holds more than tensors, or is damaged, and is not unpickled, since "
            f"that could run code of the file. Save the plain state_dict of the model, at best as .safetensors."
        ) from fault
    except Exception as fault:  # safetensors, zipfile and pickle each raise their own types for a damaged file
        raise InputError(f"{file} cannot be read as weights ({type(fault).__name__}). Is it complete?") from fault


def _state_of(content: Mapping[str, Any], file: Path) -> tuple[Mapping[str, Any], str]:
    """The weights in a trainer's dictionary, and where in it they were, as text."""
    present = [key for key in STATE_KEYS if key in content and not _is_tensor(content[key])]
    for key in present:
        if isinstance(content[key], Mapping) and content[key]:
            return content[key], f" [{key!r}]"
    if present:
        held = ", ".join(f"{key!r} is {_kind(content[key])}" for key in present)
        raise InputError(
            f"{file} holds no weights: {held}. Save the state_dict of the model under one of {STATE_KEYS}."
        )
    return content, ""


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    return f"an empty {type(value).__name__}" if isinstance(value, Mapping) else f"of type {type(value).__name__}"


def _strided() -> Any:
    import torch

    return torch.strided


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more

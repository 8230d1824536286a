"""Which safetensors files a model folder is made of, and what their headers say about each tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from mmzoo.errors import InputError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
#: safetensors' names that differ from torch's by more than the case.
DTYPE_NAMES = {
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "BF16": "bfloat16",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


class Stored(NamedTuple):
    """Where a tensor lies and its dtype there, as torch names it."""

    file: str
    dtype: str

    @property
    def kind(self) -> str:
        """ "float", "int", "bool" or "complex"."""
        return kind_of(getattr(torch, self.dtype)) if hasattr(torch, self.dtype) else self.dtype


def kind_of(dtype: torch.dtype) -> str:
    """What a dtype counts in: "float", "int", "bool" or "complex". Only within a kind may a load convert."""
    if dtype.is_floating_point:
        return "float"
    if dtype.is_complex:
        return "complex"
    return "bool" if dtype == torch.bool else "int"


def weight_files(folder: Path) -> list[str]:
    """The names of the files that transformers will read, the index of shards among them; InputError when incomplete.

    Like transformers, one whole file wins over an index.
    """
    if (folder / SINGLE).is_file():
        return [SINGLE]
    if not (folder / INDEX).is_file():
        raise InputError(
            f"{folder} holds no .safetensors file of weights ({SINGLE}, or {INDEX} and its shards); pickled weights "
            f"are never loaded. Save the model again."
        )
    try:
        shards = sorted({str(name) for name in json.loads((folder / INDEX).read_text())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise InputError(f"{folder / INDEX} is no index of weights. Save the model again.") from fault
    for name in shards:
        if Path(name).name != name or not (folder / name).is_file():
            raise InputError(f"{folder} lacks {name}, which {INDEX} names. Fetch or save the model again.")
    return [INDEX, *shards]


def stored_tensors(folder: Path, files: list[str]) -> dict[str, Stored]:
    """Tensor name -> file and dtype, from the headers of the safetensors files among `files`."""
    found: dict[str, Stored] = {}
    for name in files:
        if not name.endswith(".safetensors"):
            continue
        try:
            with safe_open(folder / name, framework="pt") as content:
                for tensor in content.keys():  # noqa: SIM118 - no dictionary
                    code = str(content.get_slice(tensor).get_dtype())
                    found[tensor] = Stored(name, DTYPE_NAMES.get(code, code.lower()))
        except (SafetensorError, OSError) as fault:
            raise InputError(
                f"{folder} could not be loaded: {name} is damaged or incomplete ({fault}). Fetch or save it again."
            ) from fault
    return found

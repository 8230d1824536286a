"""The random states of a run (Python, NumPy, torch, CUDA) as plain tensors: saved without pickle, put back exactly."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmzoo.durable_files import follow_umask


def capture() -> dict[str, Tensor]:
    """This process's states: `python`, `numpy` (627,) float64; `torch` (n,) and `cuda` (devices, m) uint8."""
    _, words, gauss = random.getstate()
    python = [*map(float, words), float(gauss is not None), gauss or 0.0]
    # The legacy global state is what third-party augmentations draw from.
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    numpy_state = [*map(float, keys), float(position), float(has_gauss), float(cached)]  # type: ignore[arg-type]
    states = {
        # 32-bit words and one double each: float64 holds all of them exactly.
        "python": torch.tensor(python, dtype=torch.float64),
        "numpy": torch.tensor(numpy_state, dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.stack(torch.cuda.get_rng_state_all())
    return states


def restore(states: Mapping[str, Tensor]) -> None:
    """Puts back what `capture` took; CUDA only where the number of devices is the same."""
    *words, has_gauss, gauss = states["python"].tolist()
    random.setstate((3, tuple(map(int, words)), gauss if has_gauss else None))
    *keys, position, has_cached, cached = states["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), int(position), int(has_cached), cached))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(list(states["cuda"]))


def save(ranks: Sequence[Mapping[str, Tensor]], path: Path) -> None:
    """Writes the states of all ranks as `rank0.python`, ... into one safetensors file."""
    save_file({f"rank{i}.{name}": value for i, states in enumerate(ranks) for name, value in states.items()}, str(path))
    follow_umask(path)


def load(path: Path, rank: int) -> dict[str, Tensor] | None:
    """The states of one rank, or None when the file was written by fewer ranks."""
    prefix = f"rank{rank}."
    states = {name.removeprefix(prefix): v for name, v in load_file(str(path)).items() if name.startswith(prefix)}
    return states or None

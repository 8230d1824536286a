"""Loads a model folder in another process, elsewhere, without a network, and compares every output bit for bit."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def outputs_of(model: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that a model in evaluation mode returns for `batch`, by name; inner ones as "outer.inner".

    ValueError when there is none, since nothing would be compared.
    """
    with torch.inference_mode():
        tensors = dict(_tensors("", model.eval()(**batch)))
    if not tensors:
        raise ValueError(f"{type(model).__name__} returns no tensor for {', '.join(batch)}")
    return tensors


def _tensors(name: str, output: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        yield name, output.clone(memory_format=torch.contiguous_format)  # safetensors stores no shared memory
    elif isinstance(output, Mapping | tuple | list):
        parts = output.items() if isinstance(output, Mapping) else enumerate(output)
        for inner, value in parts:
            yield from _tensors(f"{name}.{inner}" if name else str(inner), value)


def differing_outputs(model: Any, folder: Path, batch: Mapping[str, Tensor]) -> list[str]:
    """Names of the outputs for `batch` that a fresh process, reading `folder`, does not give bit for bit as `model`.

    The process has another working directory, as many threads, and every connection it tries raises. RuntimeError with
    its last words when it fails.
    """
    from safetensors.torch import load_file, save_file

    expected = outputs_of(model, batch)
    with tempfile.TemporaryDirectory(prefix="mmzoo-") as elsewhere:
        inputs, results = Path(elsewhere) / "batch.safetensors", Path(elsewhere) / "outputs.safetensors"
        save_file({name: value.contiguous() for name, value in batch.items()}, inputs)
        places = [os.fspath(Path(place).resolve()) for place in sys.path if place]
        child = subprocess.run(
            [sys.executable, "-m", "mmzoo.hub.fresh_process", str(folder.resolve()), str(inputs), str(results)],
            cwd=elsewhere,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(places),
                "OMP_NUM_THREADS": str(torch.get_num_threads()),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode:
            raise RuntimeError(f"a fresh process cannot use {folder}: {child.stderr.strip()[-2000:]}")
        given = load_file(results)
        names = sorted(expected.keys() | given.keys())
        return [name for name in names if not _same(expected.get(name), given.get(name))]


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None or one.dtype != other.dtype:
        return False
    return torch.equal(one.cpu(), other)


def _refuse(*arguments: Any, **_options: Any) -> Any:
    raise ConnectionRefusedError(f"no network here: {arguments[1:]}")


def main(folder: str, batch_file: str, results_file: str) -> None:
    """What the fresh process runs."""
    socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = _refuse  # type: ignore[assignment]
    from safetensors.torch import load_file, save_file

    from mmzoo.hub.load import from_pretrained

    save_file(outputs_of(from_pretrained(folder, quiet=True), load_file(batch_file)), results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])

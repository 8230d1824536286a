"""The load receipt: which file each tensor came from, in which dtype, and the share that did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mmzoo.errors import InputError
from mmzoo.hub.source import ModelSource
from mmzoo.hub.weights import Stored
from mmzoo.hub.zoo_file import NOT_RECORDED, versions


@dataclass(frozen=True)
class LoadReceipt:
    """What a load did. Tensors are parameters and persistent buffers.

    source: Hub id or folder. revision: the Hub commit. files: name -> sha256 in hex. hashes: "verified" against
    zoo.json, or "not recorded". origins: file -> dtype -> tensor names, where "float32 as bfloat16" was converted.
    """

    source: str
    revision: str | None
    files: dict[str, str]
    hashes: str
    tensors: int
    tensors_from_file: int
    elements: int
    elements_from_file: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    origins: dict[str, dict[str, list[str]]]
    versions: dict[str, str]

    def summary(self) -> str:
        """One line for a person."""
        share = 100 * self.elements_from_file / max(self.elements, 1)
        files = ", ".join(f"{name} {digest[:12]}" for name, digest in self.files.items())
        note = f" (hashes: {NOT_RECORDED})" if self.hashes == NOT_RECORDED else ""
        return (
            f"loaded {self.source}: {self.tensors_from_file}/{self.tensors} tensors ({share:.4g} %) from {files}{note}"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def in_brief(self) -> dict[str, Any]:
        """Plain values without the names of tensors: what a run record or another folder's zoo.json keeps."""
        return {name: value for name, value in self.as_json().items() if name != "origins"}

    def write(self, file: Path) -> None:
        """Writes the receipt as JSON. InputError when the file cannot be written."""
        try:
            file.write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")
        except OSError as fault:
            raise InputError(
                f"the receipt {file} cannot be written ({fault.strerror}). Choose another file."
            ) from fault


def check_receipt_file(file: Path) -> None:
    """Before the long work of loading: InputError when there is no folder for the receipt."""
    if not file.parent.is_dir() or file.is_dir():
        raise InputError(
            f"the receipt {file} cannot be written: no such folder, or itself one. Create or choose another."
        )


def make_receipt(
    model: torch.nn.Module,
    source: ModelSource,
    hashes: tuple[dict[str, str], str],
    stored: Mapping[str, Stored],
    report: Mapping[str, Any],
) -> LoadReceipt:
    """The receipt of a load. `hashes`: from `check_files`; `report`: transformers' loading report."""
    state = model.state_dict()
    missing = tuple(sorted(report["missing_keys"]))
    mismatched = tuple(sorted(str(entry[0]) for entry in report["mismatched_keys"]))
    absent = {*missing, *mismatched}
    return LoadReceipt(
        source=source.name,
        revision=source.revision,
        files={name: digest for name, digest in hashes[0].items() if name.endswith(".safetensors")},
        hashes=hashes[1],
        tensors=len(state),
        tensors_from_file=len([name for name in state if name not in absent]),
        elements=sum(tensor.numel() for tensor in state.values()),
        elements_from_file=sum(tensor.numel() for name, tensor in state.items() if name not in absent),
        missing=missing,
        unexpected=tuple(sorted(report["unexpected_keys"])),
        mismatched=mismatched,
        origins=_origins({name: tensor for name, tensor in state.items() if name not in absent}, stored),
        versions=versions(),
    )


def _origins(state: Mapping[str, torch.Tensor], stored: Mapping[str, Stored]) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for name, tensor in state.items():
        if name not in stored:
            continue  # tied to a tensor that is stored under its other name
        file, dtype = stored[name]
        here = str(tensor.dtype).removeprefix("torch.")
        label = dtype if dtype == here else f"{dtype} as {here}"
        found.setdefault(file, {}).setdefault(label, []).append(name)
    return found

"""The load receipt: which file each tensor came from, and the share that did."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers


@dataclass(frozen=True)
class LoadReceipt:
    """What a load did. Tensors are parameters and persistent buffers; hashes are sha256 in hex."""

    source: str
    files: dict[str, str]
    tensors: int
    tensors_from_file: int
    elements: int
    elements_from_file: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    revision: str | None
    versions: dict[str, str]

    def summary(self) -> str:
        """One line for a person."""
        share = 100 * self.elements_from_file / max(self.elements, 1)
        hashes = ", ".join(f"{name} {digest[:12]}" for name, digest in self.files.items())
        return f"loaded {self.source}: {self.tensors_from_file}/{self.tensors} tensors ({share:.4g} %) from {hashes}"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def write(self, file: Path) -> None:
        """Writes the receipt as JSON."""
        file.write_text(json.dumps(self.as_json(), indent=1) + "\n")


def sha256_of(file: Path) -> str:
    """sha256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def make_receipt(model: torch.nn.Module, folder: Path, report: dict[str, Any]) -> LoadReceipt:
    """The receipt of a load from `folder`, from transformers' loading report."""
    state = model.state_dict()
    missing = tuple(sorted(report["missing_keys"]))
    mismatched = tuple(sorted(str(entry[0]) for entry in report["mismatched_keys"]))
    absent = {*missing, *mismatched}
    files = {file.name: sha256_of(file) for file in sorted(folder.glob("*.safetensors")) if "official" not in file.name}
    return LoadReceipt(
        source=str(folder),
        files=files,
        tensors=len(state),
        tensors_from_file=len([name for name in state if name not in absent]),
        elements=sum(tensor.numel() for tensor in state.values()),
        elements_from_file=sum(tensor.numel() for name, tensor in state.items() if name not in absent),
        missing=missing,
        unexpected=tuple(sorted(report["unexpected_keys"])),
        mismatched=mismatched,
        revision=folder.name if folder.parent.name == "snapshots" else None,
        versions={"torch": torch.__version__, "transformers": transformers.__version__},
    )

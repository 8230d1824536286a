"""Saving a model as a Hugging Face folder: config, safetensors, processor, zoo.json and card, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmzoo.durable_files import flush, follow_umask, refused_writes_named, temporary_sibling
from mmzoo.errors import InputError
from mmzoo.hub.card import card_text
from mmzoo.hub.facts import published_facts
from mmzoo.hub.quiet import no_progress_bars
from mmzoo.hub.source import CONFIG_FILE
from mmzoo.hub.zoo_file import versions, write_zoo_file

CARD_FILE = "README.md"


def save_model(
    model: Any,
    folder: str | Path,
    *,
    processor: Any = None,
    record: Mapping[str, Any] | None = None,
    extra: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Path:
    """Writes `folder` (new, or empty): config.json, *.safetensors, preprocessor_config.json, zoo.json, README.md.

    record: what is known of the making, the content of run.json and `step`, `variant`, `metrics` (name -> value),
    `samples` (how many those were measured on), `receipts` (where weights came from), `licence` (of these weights, as
    the Hub names it); absolute paths in it are cut to names. extra: file name -> tensors to put beside the weights.
    InputError: the folder is not empty, or the system refuses to write. What is there is complete and on the disk.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty. Choose another folder or remove it.")
    temporary = temporary_sibling(folder)
    try:
        with refused_writes_named(folder):
            temporary.mkdir(parents=True)
            _write(model, temporary, processor, extra or {})
            _describe(model, temporary, record or {})
            _to_disk(temporary)
            if folder.exists():
                folder.rmdir()
            temporary.replace(folder)
            flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _write(model: Any, folder: Path, processor: Any, extra: Mapping[str, Mapping[str, Tensor]]) -> None:
    from safetensors.torch import save_file

    with no_progress_bars():
        model.save_pretrained(folder, max_shard_size="5GB")
    if processor is not None:
        processor.save_pretrained(folder)
    for name, tensors in extra.items():
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)


def _describe(model: Any, folder: Path, record: Mapping[str, Any]) -> None:
    """zoo.json, and the card that is made from the same content."""
    receipt = getattr(model, "load_receipt", None)
    receipts = [*(record.get("receipts") or []), *([{"receipt": receipt.in_brief()}] if receipt else [])]
    content = {
        "family": model.config.model_type,
        **published_facts({**record, "receipts": receipts}),
        "versions": {**(record.get("versions") or {}), **versions()},
    }
    hashed = [CONFIG_FILE, *(file.name for file in folder.iterdir() if ".safetensors" in file.name)]
    write_zoo_file(folder, hashed, content)
    (folder / CARD_FILE).write_text(card_text(content), encoding="utf-8")


def _to_disk(folder: Path) -> None:
    for file in folder.iterdir():
        follow_umask(file)
        flush(file)
    flush(folder)

"""Saving a model as a Hugging Face folder: config, safetensors, processor and card, whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from mmzoo.errors import InputError
from mmzoo.hub.card import card_text
from mmzoo.hub.quiet import no_progress_bars


def save_model(model: Any, folder: str | Path, *, processor: Any = None, card: dict[str, Any] | None = None) -> Path:
    """Writes `folder` (new, or empty): config.json, *.safetensors, preprocessor_config.json, README.md."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty. Choose another folder or remove it.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as fault:
        raise InputError(f"{folder} cannot be written ({fault.strerror}). Choose a writable folder.") from fault
    try:
        with no_progress_bars():
            model.save_pretrained(temporary, max_shard_size="5GB")
        if processor is not None:
            processor.save_pretrained(temporary)
        (temporary / "README.md").write_text(card_text(model.config.model_type, card or {}))
        # mkdtemp and safetensors write for the owner only; a published folder is for everyone.
        temporary.chmod(0o755)
        for file in temporary.iterdir():
            file.chmod(0o644)
        if folder.exists():
            folder.rmdir()
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder

"""`mmzoo.from_pretrained`: a folder, a checkpoint of a run, or a Hub id -> a model in evaluation mode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmzoo.errors import InputError, suggestion
from mmzoo.families import find_families, load_object

if TYPE_CHECKING:
    from mmzoo.hub.model import ZooModel

HUB_FILES = ("*.json", "*.safetensors", "README.md")


def model_folder(folder_or_id: str | Path, revision: str | None = None) -> Path:
    """The local folder that holds config.json: as given, the `model/` of a checkpoint, or a Hub snapshot."""
    folder = Path(folder_or_id).expanduser()
    if (folder / "model" / "config.json").is_file() and not (folder / "config.json").is_file():
        folder = folder / "model"
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(
                f"{folder} holds no config.json, so it is not a model folder. Name a checkpoint or its model/."
            )
        return folder.resolve()
    text = str(folder_or_id)
    if folder.exists() or text.startswith(("/", "./", "../", "~")) or text.count("/") != 1:
        raise InputError(f"there is no model folder {text}. Give an existing folder or a Hub id such as owner/name.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(text, revision=revision, allow_patterns=list(HUB_FILES)))
    except Exception as fault:  # the Hub client raises its own, httpx's and OSError for "not there" and "no network"
        raise InputError(
            f"{text} is neither a local folder nor reachable on the Hub ({type(fault).__name__}). "
            f"Check the name and the network, or download it first and give the folder."
        ) from fault


def read_model_type(folder: Path) -> str:
    """The `model_type` of a model folder."""
    try:
        return str(json.loads((folder / "config.json").read_text())["model_type"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as fault:
        raise InputError(
            f"{folder / 'config.json'} is not a model config ({type(fault).__name__}). Save the model again."
        ) from fault


def from_pretrained(
    folder_or_id: str | Path,
    *,
    revision: str | None = None,
    dtype: Any = None,
    allow_missing: tuple[str, ...] = (),
    receipt_file: str | Path | None = None,
    quiet: bool = False,
) -> ZooModel:
    """Loads a model of this zoo, strictly, in evaluation mode; InputError says what is wrong with the folder."""
    folder = model_folder(folder_or_id, revision)
    model_type = read_model_type(folder)
    families = {name: entry.family for name, entry in find_families().items()}
    if model_type not in families:
        raise InputError(
            f"{folder} holds a {model_type!r}, which is no family of this zoo.{suggestion(model_type, families)}"
        )
    if not list(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} holds no .safetensors file; pickled weights are never loaded. Save the model again."
        )
    model_class = load_object(families[model_type].model)
    model = model_class.from_pretrained(
        folder, dtype=dtype, allow_missing=tuple(allow_missing), receipt_file=receipt_file, quiet=quiet
    )
    return model.eval()

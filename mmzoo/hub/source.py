"""Where a model comes from: a local folder, the `model/` of a finished checkpoint, or a commit on the Hub."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmzoo.errors import InputError
from mmzoo.training.checkpoint_folder import MODEL_FOLDER, TRAINER_FILE, read_seal

CONFIG_FILE = "config.json"
HUB_FILES = ("*.json", "*.safetensors", "README.md")
#: Options of transformers' from_pretrained that say where on the Hub, or how, to fetch.
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token")
COMMIT = re.compile(r"[0-9a-f]{40}")
MISSPELT = 0.8  #: likeness (difflib) from which on an unknown key of config.json is a known one misspelt


@dataclass(frozen=True)
class ModelSource:
    """`folder` holds config.json. `name`: what a person calls it, the Hub id or the folder. `revision`: the commit."""

    name: str
    folder: Path
    revision: str | None


def find_source(folder_or_id: str | Path, *, revision: str | None = None, **hub: Any) -> ModelSource:
    """Finds a model folder, fetching it from the Hub when `folder_or_id` names none. `hub`: see HUB_OPTIONS.

    InputError: no such folder or id, no model in it, a checkpoint that was never finished, `revision` of a folder.
    """
    folder = Path(folder_or_id).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise InputError(
                f"revision {revision!r} was given for the local folder {folder}, which has none. Leave it out, or give "
                f"a Hub id."
            )
        folder = _inside_checkpoint(folder.resolve())
        if not (folder / CONFIG_FILE).is_file():
            raise InputError(
                f"{folder} holds no config.json, so it is not a model folder. Name a checkpoint or its model/."
            )
        return ModelSource(str(folder), folder, snapshot_commit(folder))
    text = str(folder_or_id)
    if folder.exists() or text.startswith(("/", "./", "../", "~")) or text.count("/") != 1:
        last = folder.with_name("last")
        advice = (
            f"There is {last}; `best` comes with the first validation"
            if last.exists()
            else ("Give an existing folder or a Hub id such as owner/name")
        )
        raise InputError(f"there is no model folder {text}. {advice}.")
    folder = _download(text, revision, hub)
    if not (folder / CONFIG_FILE).is_file():
        raise InputError(f"{text} on the Hub holds no config.json, so it is no model of transformers' kind.")
    return ModelSource(text, folder, snapshot_commit(folder))


def model_folder(folder_or_id: str | Path, revision: str | None = None) -> Path:
    """The folder of `find_source` alone."""
    return find_source(folder_or_id, revision=revision).folder


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json, which names a `model_type`. InputError when it does not."""
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        str(values["model_type"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as fault:
        raise InputError(
            f"{folder / CONFIG_FILE} is not a model config ({type(fault).__name__}). Save the model again."
        ) from fault
    return values


def refuse_misspelt_keys(config_class: Any, folder: Path) -> None:
    """transformers keeps any key, so a misspelt setting would silently mean its default: InputError.

    A key that resembles no setting may be a newer transformers' own, and passes.
    """
    values = read_config(folder)
    known = set(config_class().to_dict())
    for key in values.keys() - known:
        meant = difflib.get_close_matches(key, sorted(known - values.keys()), n=1, cutoff=MISSPELT)
        if meant:
            raise InputError(
                f"{folder / CONFIG_FILE}: {key!r} is not a setting of {config_class.model_type}. "
                f"Did you mean {meant[0]!r}? Correct it, or fetch or save the model again."
            )


def load_config(config_class: Any, folder: Path) -> Any:
    """The configuration in a model folder; InputError when `config_class` cannot be made of it."""
    refuse_misspelt_keys(config_class, folder)
    try:
        return config_class.from_pretrained(folder)
    except Exception as fault:  # transformers raises many types for a value that it cannot use
        reason = " ".join(str(fault).split())
        named = "" if isinstance(fault, InputError) else f"{type(fault).__name__}: "
        raise InputError(
            f"{folder / CONFIG_FILE} is no sound {config_class.model_type} config: {named}{reason} "
            f"Correct it, or fetch or save the model again."
        ) from fault


def read_model_type(folder: Path) -> str:
    """The `model_type` of a model folder."""
    return str(read_config(folder)["model_type"])


def snapshot_commit(folder: Path) -> str | None:
    """The commit that a folder of the Hub's cache holds (models--OWNER--NAME/snapshots/COMMIT); None elsewhere."""
    repository = folder.parent.parent.name
    in_cache = folder.parent.name == "snapshots" and repository.startswith("models--")
    return folder.name if in_cache and COMMIT.fullmatch(folder.name) else None


def _inside_checkpoint(folder: Path) -> Path:
    """The `model/` of a checkpoint. A checkpoint without its seal is refused, also when its `model/` is named."""
    for checkpoint in (folder, folder.parent):
        if (checkpoint / TRAINER_FILE).exists():
            read_seal(checkpoint)
    holds_model = (folder / MODEL_FOLDER / CONFIG_FILE).is_file() and not (folder / CONFIG_FILE).is_file()
    return folder / MODEL_FOLDER if holds_model else folder


def _download(repository: str, revision: str | None, hub: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(HUB_FILES), **hub))
    except Exception as fault:  # the Hub client raises its own, httpx's and OSError for "not there" and "no network"
        at = f" at revision {revision!s}" if revision else ""
        raise InputError(
            f"{repository}{at} is neither a local folder nor reachable on the Hub ({type(fault).__name__}). "
            f"Check the name and the network, or download it first and give the folder."
        ) from fault

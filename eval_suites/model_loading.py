"""The model of an evaluation: on its device, with the name that tables use and the hashes of what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval_suites.record import ModelStamp
from mmzoo.durable_files import sha256_of
from mmzoo.hub.source import CONFIG_FILE, find_source


def model_name(source: str) -> str:
    """What a table calls a model: a Hub id as it is; of a folder its name, of a checkpoint also its run's."""
    path = Path(source)
    if not path.is_absolute():
        return source
    if path.name == "model" and path.parent.parent.name == "checkpoints":
        return f"{path.parent.parent.parent.name}/{path.parent.name}"
    return path.name


def load_model(given: str, revision: str | None, name: str | None, device: str) -> tuple[Any, ModelStamp]:
    """The model on its device, and what the record says of it."""
    from mmzoo.hub.load import from_pretrained
    from mmzoo.hub.zoo_file import read_zoo_file

    source = find_source(given, revision=revision)
    model: Any = from_pretrained(given, revision=revision)
    receipt = model.load_receipt
    if receipt is None:
        raise RuntimeError(f"{given} was loaded without a receipt")
    stamp = ModelStamp(
        name=name or model_name(source.name),
        family=model.config.model_type,
        variant=(read_zoo_file(source.folder) or {}).get("variant"),
        revision=receipt.revision,
        files={CONFIG_FILE: sha256_of(source.folder / CONFIG_FILE), **receipt.files},
        hashes=receipt.hashes,
        tensors=receipt.tensors,
        tensors_from_file=receipt.tensors_from_file,
        missing=receipt.missing,
    )
    return model.to(device), stamp

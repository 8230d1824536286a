"""`zoo.json`, the seal and birth certificate of a model folder: what every file hashes to, and how it was made."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
import transformers

import mmzoo
from mmzoo.durable_files import sha256_of
from mmzoo.errors import InputError

ZOO_FILE, SCHEMA = "zoo.json", 1
VERIFIED, NOT_RECORDED = "verified", "not recorded"


def versions() -> dict[str, str]:
    """Versions of what reads and writes weights."""
    return {
        "mmzoo": mmzoo.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "safetensors": safetensors.__version__,
    }


def write_zoo_file(folder: Path, names: Iterable[str], facts: Mapping[str, Any]) -> None:
    """Writes zoo.json: the schema, `facts`, and size (bytes) and sha256 (hex) of the files `names`."""
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in sorted(names)
    }
    text = json.dumps({"schema": SCHEMA, **facts, "files": files}, indent=1, allow_nan=False)
    (folder / ZOO_FILE).write_text(text + "\n", encoding="utf-8")


def read_zoo_file(folder: Path) -> dict[str, Any] | None:
    """The content of zoo.json; None where there is none (a folder by plain `save_pretrained`)."""
    file = folder / ZOO_FILE
    if not file.is_file():
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        schema = record["schema"]
        record["files"] = {
            name: {"size": expected["size"], "sha256": expected["sha256"]} for name, expected in record["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise InputError(f"{file} cannot be read ({type(fault).__name__}). Fetch or save the model again.") from fault
    if schema != SCHEMA:
        raise InputError(f"{file} has schema {schema}; this mmzoo reads schema {SCHEMA}. Use the mmzoo that wrote it.")
    return record


def check_files(folder: Path, names: Iterable[str]) -> tuple[dict[str, str], str]:
    """sha256 of the files `names`, and whether they were compared with zoo.json: VERIFIED or NOT_RECORDED.

    InputError names the first file that differs, or that zoo.json does not know.
    """
    record = read_zoo_file(folder)
    if record is None:
        return {name: sha256_of(folder / name) for name in names}, NOT_RECORDED
    hashes = {}
    for name in names:
        expected, path = record["files"].get(name), folder / name
        if expected is None:
            raise InputError(f"{folder} could not be loaded: {ZOO_FILE} does not list {name}. {_way_out()}")
        size = path.stat().st_size
        if size != expected["size"]:
            raise InputError(
                f"{folder} could not be loaded: {name} has {size} bytes, {ZOO_FILE} says {expected['size']}. "
                + _way_out()
            )
        hashes[name] = sha256_of(path)
        if hashes[name] != expected["sha256"]:
            raise InputError(
                f"{folder} could not be loaded: the content of {name} has changed since it was saved (sha256). "
                + _way_out()
            )
    return hashes, VERIFIED


def _way_out() -> str:
    return f"Fetch or save the model again; after a change on purpose, remove {ZOO_FILE}."

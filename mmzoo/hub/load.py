"""`mmzoo.from_pretrained`: a folder, a checkpoint of a run, or a Hub id -> a model in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmzoo.errors import InputError, suggestion
from mmzoo.families import find_families, load_object
from mmzoo.hub.source import find_source, read_config

if TYPE_CHECKING:
    from mmzoo.hub.model import ZooModel


def from_pretrained(
    folder_or_id: str | Path,
    *,
    revision: str | None = None,
    dtype: Any = None,
    allow_missing: str | Iterable[str] = (),
    receipt_file: str | Path | None = None,
    quiet: bool = False,
) -> ZooModel:
    """Loads a model of this zoo, strictly, in evaluation mode; InputError says what is wrong with the folder.

    `revision` (branch, tag or commit) belongs to a Hub id. The rest: see ZooModel.from_source.
    """
    source = find_source(folder_or_id, revision=revision)
    written = read_config(source.folder)
    model_type = str(written["model_type"])
    families = {name: entry.family for name, entry in find_families().items()}
    if model_type not in families:
        raise InputError(
            f"{source.name} holds a {model_type!r}, which is no family of this zoo.{suggestion(model_type, families)}"
        )
    model_class = load_object(families[model_type].model_of(written.get("architectures") or ()))
    model = model_class.from_source(
        source, dtype=dtype, allow_missing=allow_missing, receipt_file=receipt_file, quiet=quiet
    )
    return model.eval()

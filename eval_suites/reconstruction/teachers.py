"""The teacher that a user names for semantic_cosine, loaded by the model's own family: no suite knows a family."""

from __future__ import annotations

from typing import Any

from mmzoo.errors import InputError
from mmzoo.families import find_families, load_object


def open_teacher(named: Any, model: Any) -> Any:
    """The teacher at a folder or Hub id, as the family of `model` loads it; what is no text is a teacher already.

    InputError: the family has none, or cannot load this one.
    """
    if not isinstance(named, str):
        return named
    kind = getattr(model.config, "model_type", type(model).__name__)
    entry = find_families().get(kind)
    if entry is None or entry.family.teacher is None:
        raise InputError(f"--teacher {named}: models of the kind {kind} have no teacher here. Leave it out.")
    return load_object(entry.family.teacher)(named, model)

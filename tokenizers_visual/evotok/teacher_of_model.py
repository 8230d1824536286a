"""The teacher of a trained tokenizer, found again: the user says where it lies, the model's zoo.json what it was."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from mmzoo.errors import InputError
from mmzoo.hub.source import find_source
from mmzoo.hub.zoo_file import ZOO_FILE, read_zoo_file
from tokenizers_visual.evotok.teacher import Teacher, TeacherSettings

LAYER_MARK = "@"  #: SOURCE@LAYER names a layer for a model whose zoo.json records no teacher


def load_teacher(source: str, model: Any) -> Teacher:
    """The teacher at `source`, a folder or Hub id, as `model` was trained with it: layer, sizes, normalisation.

    SOURCE@LAYER for a model without a record of it, such as imported weights. InputError: no record and no layer,
    other weights than those of the record, features of another width.
    """
    place, mark, layer = source.rpartition(LAYER_MARK)
    record = _recorded(model)
    if mark and layer and not Path(source).exists():
        record = {**({} if record is None else record), "layer": layer}
    else:
        place = source
    if record is None:
        raise InputError(
            f"--teacher {source}: the model's {ZOO_FILE} records no teacher, so its layer is not known. "
            f"Write {source}{LAYER_MARK}LAYER, e.g. {source}{LAYER_MARK}encoder.layers.22"
        )
    teacher = Teacher.load(_settings(place, record))
    _refuse_other_weights(place, teacher.receipt.get("files"), record.get("files"))
    _refuse_other_width(place, teacher, model)
    return teacher.to(model.device)


def _recorded(model: Any) -> dict[str, Any] | None:
    """The receipt of the teacher that the model was trained with."""
    receipt = model.load_receipt
    if receipt is None:
        return None
    zoo = read_zoo_file(find_source(receipt.source, revision=receipt.revision).folder) or {}
    found = [one["teacher"] for one in zoo.get("started_from") or [] if isinstance(one, dict) and "teacher" in one]
    return found[-1] if found else None


def _settings(source: str, record: dict[str, Any]) -> TeacherSettings:
    known = {one.name for one in fields(TeacherSettings)}
    values = {name: value for name, value in record.items() if name in known and value is not None}
    if not Path(source).expanduser().exists() and record.get("commit"):
        values["revision"] = record["commit"]
    values |= {name: tuple(values[name]) for name in ("mean", "std") if name in values}
    return TeacherSettings(**{**values, "source": source})


def _refuse_other_weights(source: str, here: dict[str, str] | None, recorded: dict[str, str] | None) -> None:
    if here and recorded and sorted(here.values()) != sorted(recorded.values()):
        raise InputError(
            f"--teacher {source} holds other weights than the teacher that this model was trained with (sha256 of "
            f"{', '.join(sorted(recorded))}). Name that one."
        )


def _refuse_other_width(source: str, teacher: Teacher, model: Any) -> None:
    config = model.config
    side = config.image_size // config.patch_size
    channels = teacher.try_out(config.image_size, (side, side))
    if channels != config.semantic_out_width:
        raise InputError(
            f"--teacher {source} gives {channels} channels, the model's read-out {config.semantic_out_width}. "
            f"Name the teacher that it was trained with."
        )

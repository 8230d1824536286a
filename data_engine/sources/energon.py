"""Folders that Megatron-Energon prepared: `.nv-meta/dataset.yaml` says what a sample's members mean.

Read: `sample_type` (captioning, VQA, multiple choice, classification, text, OCR, image) with a `field_map`, and the
shards of a part of `.nv-meta/split.yaml`, without those that it excludes. Code of the folder's own is never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_engine.sources.annotation_rows import Row, inside
from data_engine.sources.source import Source
from data_engine.sources.webdataset_tars import TarSample, read_member_json, read_text, tar_samples
from data_engine.stored_sample import IMAGE_PLACEHOLDER, StoredFile, StoredSample, Turn
from mmzoo.errors import InputError, suggestion

META_FOLDER = ".nv-meta"
TYPES = {
    "CaptioningSample": ("image", "caption"),
    "VQASample": ("image", "context", "answers"),
    "MultiChoiceVQASample": ("image", "context", "choices", "correct_choice_idx"),
    "ImageClassificationSample": ("image", "label"),
    "TextSample": ("text",),
    "OCRSample": ("image", "text"),
    "ImageSample": ("image",),
}
TEMPLATE = (
    "sample_type: {__module__: megatron.energon, __class__: CaptioningSample}, field_map: {image: jpg, caption: txt}"
)


@dataclass(frozen=True, kw_only=True)
class EnergonSource(Source):
    """`folder`: with its `.nv-meta`; `part`: which one of split.yaml."""

    folder: Path
    part: str = "train"

    def samples(self) -> Iterator[StoredSample]:
        """See Source."""
        kind, fields = self._layout()
        shards, excluded = self._shards()
        number = 0
        for name in shards:
            for found in tar_samples(self.folder / name):
                number += 1
                if f"{name}/{found.key}" not in excluded:
                    values = {field: member_value(found, access) for field, access in fields.items()}
                    row = Row(found.place, number, values)
                    yield self.sample(number, f"{name}, key {found.key}", **_fields(kind, row, found.key))

    def _layout(self) -> tuple[str, dict[str, str]]:
        file = self.folder / META_FOLDER / "dataset.yaml"
        content = read_yaml(file)
        if "sample_loader" in content or (self.folder / META_FOLDER / "sample_loader.py").exists():
            raise InputError(
                f"{self.folder} has a sample_loader.py of its own, and code of a data set is not run. "
                f"Say in {file} what the members mean, for example: {TEMPLATE}"
            )
        sample_type, fields = content.get("sample_type"), content.get("field_map")
        kind = str(sample_type.get("__class__")) if isinstance(sample_type, dict) else None
        if kind not in TYPES:
            raise InputError(
                f"{file}: sample_type {kind!r} is not read.{suggestion(str(kind), TYPES)} As in: {TEMPLATE}"
            )
        if not isinstance(fields, dict) or not all(isinstance(text, str) for pair in fields.items() for text in pair):
            raise InputError(f"{file}: no field_map. As in: {TEMPLATE}")
        for name in TYPES[kind]:
            if name not in fields:
                raise InputError(f"{file}: field_map lacks {name!r}, which a {kind} needs.{suggestion(name, fields)}")
        return kind, {name: fields[name] for name in fields if not name.startswith("__")}

    def _shards(self) -> tuple[list[str], set[str]]:
        file = self.folder / META_FOLDER / "split.yaml"
        content = read_yaml(file)
        parts = content.get("split_parts")
        if not isinstance(parts, dict) or not parts.get(self.part):
            known = map(str, parts) if isinstance(parts, dict) else ()
            raise InputError(f"{file}: no part {self.part!r}.{suggestion(self.part, list(known))}")
        patterns, exclude = parts[self.part], content.get("exclude") or []
        for listed, what in ((patterns, f"split_parts.{self.part}"), (exclude, "exclude")):
            if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
                raise InputError(f"{file}: {what} is no list of names. As in: [shard_000.tar, shard_001.tar]")
        excluded: set[str] = set(exclude)
        names = [name for pattern in patterns for name in expand_braces(pattern)]
        for name in names:
            inside(self.folder, name, str(file))
        return [name for name in names if name not in excluded], excluded


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. InputError otherwise."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no {file}. Is it a folder that `energon prepare` saw?") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as fault:
        raise InputError(f"cannot read {file}: {' '.join(str(fault).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} holds no mapping")
    return content


def expand_braces(pattern: str) -> list[str]:
    """The names of "shard_{000..003}.tar", or of "{a,b}.tar"; a name without braces is itself."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", pattern)
    if not match:
        return [pattern]
    low, high, listed = match.groups()
    middle = listed.split(",") if listed else [f"{n:0{len(low)}d}" for n in range(int(low), int(high) + 1)]
    return [name for part in middle for name in expand_braces(pattern[: match.start()] + part + pattern[match.end() :])]


def member_value(found: TarSample, access: str) -> Any:
    """What a field_map's value names: "jpg,png" the first that is there, "json[a][0]" inside a json member."""
    for option in access.split(","):
        name, *path = [part.rstrip("]") for part in option.strip().split("[")]
        if name not in found.members:
            continue
        if name.rpartition(".")[2] == "json":
            return _inside(found, {**found.members, "json": found.members[name]}, path, access)
        return read_text(found, name) if name in ("txt", "text", "cls") else found.members[name]
    raise InputError(f"{found.place}: no member for {access!r}; there are {', '.join(sorted(found.members))}")


def _inside(found: TarSample, members: dict[str, StoredFile], path: list[str], access: str) -> Any:
    value: Any = dict(read_member_json(TarSample(found.key, found.place, members)).values)
    for step in path:
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (LookupError, TypeError, ValueError):
            raise InputError(f"{found.place}: the json has nothing at {access!r}") from None
    return value


def _fields(kind: str, row: Row, key: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"meta": {"key": key}}
    if "image" in row.values:
        fields["images"] = (row.require("image", StoredFile),)
    if kind in ("VQASample", "MultiChoiceVQASample"):
        answer, more = _answer(kind, row)
        question = Turn("user", f"{IMAGE_PLACEHOLDER}\n{row.require('context')}")
        return {**fields, "conversation": (question, Turn("assistant", answer)), "meta": {**fields["meta"], **more}}
    if kind == "ImageClassificationSample":
        label = row.require("label", (int, str))
        return {**fields, "text": str(row.values.get("label_name", label)), "meta": {**fields["meta"], "label": label}}
    text = {"CaptioningSample": "caption", "TextSample": "text", "OCRSample": "text"}.get(kind)
    return {**fields, "text": row.require(text)} if text else fields


def _answer(kind: str, row: Row) -> tuple[str, dict[str, Any]]:
    """The answer, and what else is known of answers: a question may have several, the first is the one to learn."""
    name = "answers" if kind == "VQASample" else "choices"
    given = row.require(name, (str, list))
    answers = [given] if isinstance(given, str) else given
    number = row.require("correct_choice_idx", int) if kind == "MultiChoiceVQASample" else 0
    if not 0 <= number < len(answers) or not isinstance(answers[number], str):
        raise row.fail(f"{name!r} has no text number {number}")
    return answers[number], {name: answers, **({"correct_choice_idx": number} if name == "choices" else {})}

"""The YAML of `mmzoo data build -c CONFIG`, checked whole before anything is read.

    output: shards/mix          # new, empty, or a shard folder of ours with overwrite: true
    shard_size: 256MB           # what a shard stays below
    val_fraction: 0.1           # share in the split val, by hash; see build_splits.py
    workers: 2                  # processes; the result does not depend on it
    max_rejected: 0             # damaged or absent files that are put up with, each listed in rejected.jsonl
    without: removed.jsonl      # a list of mmzoo data clean, or repairs.jsonl: samples of these sources to leave out
    transforms: [without_thinking]  # changes to each sample, see record_transforms.py
    energon: CaptioningSample   # also write .nv-meta, for Megatron-Energon; or VQASample, TextSample, ImageSample
    sources:
      - {kind: llava, name: notes, license: CC0-1.0, annotations: notes.json, images: photos}

Paths are relative to where the command runs. `split: train` or `val` in a source puts all of it there, `group: REGEX`
keeps together what its first capture group finds in the names of files. `where: {field: value or list}` takes the rows
with these values; a published split is two sources, `where: {split: val}, split: val` and the same with train.
The kinds and their options stand in docs/data.md.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from data_engine.byte_size import byte_size
from data_engine.energon_meta import FIELD_MAPS
from data_engine.record_transforms import TRANSFORMS
from data_engine.removals import ListedRemoval, read_removals
from data_engine.sources.selected import SelectedSource
from data_engine.sources.source import Source, key_stem
from data_engine.splits import SPLITS, group_pattern
from mmzoo.errors import InputError, suggestion

KINDS = {
    "llava": "llava:LlavaSource",
    "questions": "question_answers:QuestionSource",
    "captions": "caption_pairs:CaptionSource",
    "coco": "coco:CocoSource",
    "referring": "referring:ReferringSource",
    "dota": "dota:DotaSource",
    "zoom_chain": "zoom_chain:ZoomChainSource",
    "image_masks": "image_masks:ImageMaskSource",
    "geotiff_pairs": "geotiff_pairs:GeotiffPairSource",
    "images": "plain_images:PlainImageSource",
    "hugging_face": "hugging_face:HuggingFaceSource",
    "webdataset": "webdataset_tars:WebdatasetSource",
    "energon": "energon:EnergonSource",
}
PLACEMENT = ("kind", "split", "group", "where")


@dataclass(frozen=True, slots=True)
class PlacedSource:
    """A source, and where its samples go: a fixed split or None for the hash, and what must stay together."""

    source: Source
    kind: str
    split: str | None = None
    group: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True)
class BuildConfig:
    """What to build. `shard_bytes`: bytes. `energon`: the sample type of the `.nv-meta` to write, or None. `without`:
    keys to leave out; `transforms`: names of TRANSFORMS, in their order.
    """

    output: Path
    sources: tuple[PlacedSource, ...]
    shard_bytes: int
    val_fraction: float = 0.1
    workers: int = 1
    max_rejected: int = 0
    overwrite: bool = False
    energon: str | None = None
    without: Mapping[str, ListedRemoval] = dataclasses.field(default_factory=dict)
    transforms: tuple[str, ...] = ()

    @property
    def shaping(self) -> dict[str, Any]:
        """What the result follows from, beside the samples: all but output and workers."""
        places = [(each.source.name, each.split, each.group and each.group.pattern) for each in self.sources]
        names = ("shard_bytes", "val_fraction", "max_rejected", "energon")
        chosen = {"without": sorted(self.without), "transforms": list(self.transforms)}
        given = {name: value for name, value in chosen.items() if value}
        return {**{name: getattr(self, name) for name in names}, "places": places, **given}


def read_config(file: Path) -> BuildConfig:
    """The config of a file. InputError: unreadable, an unknown key or kind, a value of another type."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as fault:
        raise InputError(f"cannot read {file}: {fault.strerror}. Name a YAML file") from None
    except (ValueError, RecursionError, yaml.YAMLError) as fault:
        raise InputError(f"{file} is not YAML: {' '.join(str(fault).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} must hold keys such as output and sources. See: mmzoo data build --help")
    return parse_config(content, str(file))


def parse_config(content: Mapping[str, Any], place: str) -> BuildConfig:
    """The config of a mapping; `place` begins every message."""
    types_of = get_type_hints(BuildConfig) | {"shard_size": str | int, "sources": list, "without": Path}
    del types_of["shard_bytes"]
    _check_keys(content, types_of, place)
    for name in ("output", "sources"):
        if name not in content:
            raise InputError(f"{place}: {name} is missing")
    given = {name: _value(value, types_of[name], f"{place}: {name}") for name, value in content.items()}
    size = given.pop("shard_size", "256MB")
    sources = _sources(given.pop("sources"), place)
    if given.get("energon") and given["energon"] not in FIELD_MAPS:
        raise InputError(
            f"{place}: energon {given['energon']!r} is not known.{suggestion(given['energon'], FIELD_MAPS)}"
        )
    for name in given.get("transforms", ()):
        if name not in TRANSFORMS:
            raise InputError(f"{place}: unknown transform {name!r}.{suggestion(name, TRANSFORMS)}")
    if "without" in given:
        given["without"] = read_removals(given["without"])
    config = BuildConfig(shard_bytes=_bytes(size, place), sources=sources, **given)
    if config.workers < 1 or config.max_rejected < 0 or not 0 <= config.val_fraction <= 1 or config.shard_bytes < 1:
        raise InputError(f"{place}: workers and shard_size are 1 or more, max_rejected 0 or more, val_fraction 0 to 1")
    return config


def _bytes(size: str | int, place: str) -> int:
    try:
        return byte_size(str(size))
    except InputError as mistake:
        raise InputError(f"{place}: shard_size: {mistake}") from None


def _sources(entries: list[Any], place: str) -> tuple[PlacedSource, ...]:
    if not entries:
        raise InputError(f"{place}: sources is empty. Give one or more, each with a kind and a name")
    sources = [_source(entry, f"{place}: sources[{number}]") for number, entry in enumerate(entries)]
    sources.sort(key=lambda each: key_stem(each.source.name))
    for first, second in pairwise(sources):
        if key_stem(first.source.name) == key_stem(second.source.name):
            raise InputError(
                f"{place}: {first.source.name!r} and {second.source.name!r} give the same keys. Rename one"
            )
    return tuple(sources)


def _source(entry: Any, place: str) -> PlacedSource:
    if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str):
        raise InputError(f"{place}: a kind is missing. Known: {', '.join(KINDS)}")
    kind = entry["kind"]
    if kind not in KINDS:
        raise InputError(f"{place}: unknown kind {kind!r}.{suggestion(kind, KINDS)}")
    module, _, name = KINDS[kind].partition(":")
    source_type = getattr(import_module(f"data_engine.sources.{module}"), name)
    hints = {field.name: get_type_hints(source_type)[field.name] for field in dataclasses.fields(source_type)}
    _check_keys(entry, [*hints, *PLACEMENT], place)
    for field in dataclasses.fields(source_type):
        if field.name not in entry and field.default is dataclasses.MISSING:
            raise InputError(f"{place}: kind {kind} needs {field.name}")
    options = {key: _value(value, hints[key], f"{place}: {key}") for key, value in entry.items() if key in hints}
    split = entry.get("split")
    if split is not None and split not in SPLITS:
        raise InputError(f"{place}: split {split!r} is not one of {', '.join(SPLITS)}")
    group = _value(entry.get("group"), str | None, f"{place}: group")
    source = source_type(**options)
    where = _value(entry["where"], dict, f"{place}: where") if "where" in entry else None
    if where is not None:
        source = SelectedSource(name=source.name, license=source.license, whole=source, where=where)
    return PlacedSource(source, kind, split, group_pattern(group))


def _check_keys(given: Mapping[str, Any], known: Any, place: str) -> None:
    for key in given:
        if key not in known:
            raise InputError(f"{place}: unknown key {key!r}.{suggestion(str(key), known)}")


def _value(value: Any, wanted: Any, place: str) -> Any:
    """The value as the type of a field wants it. InputError: it is of another type."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        plain = [each for each in inner if each is not type(None)]
        matching = [each for each in plain if isinstance(each, type) and isinstance(value, each)]
        return _value(value, (matching or plain)[0], place)
    if origin is Literal:
        if value not in inner:
            raise InputError(f"{place}: {value!r} is not one of {', '.join(inner)}.{suggestion(str(value), inner)}")
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_value(each, inner[0], place) for each in value)
    if origin is dict and isinstance(value, dict):
        return {_value(key, inner[0], place): _value(each, inner[1], place) for key, each in value.items()}
    if wanted is Path and isinstance(value, str) and value:
        return Path(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain_type = origin or wanted
    if plain_type is Path or not isinstance(value, plain_type) or (isinstance(value, bool) and plain_type is not bool):
        name = "a path" if plain_type is Path else plain_type.__name__
        raise InputError(f"{place}: {value!r} is a {type(value).__name__}, {name} is due")
    return value

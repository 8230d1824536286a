"""Reads a mixture as a user writes it, in YAML. Every mistake is found before anything is opened.

    sources: {photos: shards/photos, radar: s3://sets/radar}  # name: shard folder, or the URL of one
    parts:
      - photos*2                                              # twice an epoch
      - radar%12.5                                            # an eighth of it, the same rows in every epoch
      - {parts: [a, b], weight: ..., name: general}           # a mixture in the mixture

A part is `name`, `name*k`, `name%p`, or a mapping with `source` or `parts` and at most one of `epochs`, `percent`,
`weight`, `quota`. A node (the whole, or a part with `parts`) may have `temperature` and `samples`. `all`, `all*k`,
`all%p` stand for every source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from data_engine.mixture import How, Part
from data_engine.remote import is_remote
from mmzoo.errors import InputError, suggestion

AMOUNTS = ("epochs", "percent", "weight", "quota")
HOW: dict[str, How] = {"epochs": "epochs", "percent": "epochs", "weight": "weight", "quota": "quota"}
NODE_KEYS = ("parts", "temperature", "samples")
PART_KEYS = ("source", "name", *NODE_KEYS, *AMOUNTS)
TOP_KEYS = ("sources", *NODE_KEYS)
_WRITTEN = re.compile(r"(?P<name>[^*%]+)(?:(?P<sign>[*%])(?P<number>[0-9.]+))?")


@dataclass(frozen=True, slots=True)
class Mixture:
    """Sources by name, each with its folder or its URL, and the tree over them. `text`: the parts as JSON, for
    comparing.
    """

    sources: dict[str, Path | str]
    root: Part
    text: str


def read_mixture(given: Mapping[str, Any] | str | Path) -> Mixture:
    """A mixture from a mapping, or from a YAML or JSON file, whose folders are then relative to that file.

    InputError, with the place and the nearest name: unknown keys, names or signs, a source that is never used.
    """
    base = Path()
    if not isinstance(given, Mapping):
        base = Path(given).parent
        given = _load(Path(given))
    _known_keys("mixture", given, TOP_KEYS)
    folders = given.get("sources")
    if not isinstance(folders, Mapping) or not folders:
        raise InputError("mixture.sources must name at least one source, as NAME: FOLDER")
    names = [str(name) for name in folders]
    for name in names:
        if not re.fullmatch(r"[^*%@\s]+", name) or name == "all":
            raise InputError(f"mixture.sources: {name!r} is no name of a source. Leave out *, %, @, spaces; not 'all'")
    for name, folder in folders.items():
        if not isinstance(folder, str):
            raise InputError(f"mixture.sources.{name} must be a folder or a URL, not {folder!r}")
    try:
        root = _node("mixture", given, names)
    except RecursionError:
        raise InputError(
            "mixture.parts: mixtures stand too deep in each other, or one in itself. Flatten them"
        ) from None
    used = {leaf.source for leaf in root.leaves()}
    for name in names:
        if name not in used:
            raise InputError(f"mixture.sources: {name!r} is in no part. Add it to mixture.parts, or take it out")
    text = json.dumps({key: given[key] for key in NODE_KEYS if key in given}, sort_keys=True, default=str)
    places = {str(name): folder if is_remote(folder) else base / folder for name, folder in folders.items()}
    return Mixture(places, root, text)


def _load(file: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as fault:
        raise InputError(f"cannot read the mixture {file}: {fault.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        raise InputError(f"the mixture {file} is not YAML: {' '.join(str(fault).split())}") from None
    if not isinstance(content, Mapping):
        raise InputError(f"the mixture {file} must be a mapping with sources and parts")
    return content


def _known_keys(where: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise InputError(f"{where}: no such key {key!r}.{suggestion(str(key), known)}")


def _node(where: str, given: Mapping[str, Any], names: Sequence[str], amount: Fraction = Fraction(1)) -> Part:
    """A mixture with its parts; `amount`: its own among its siblings."""
    written = given.get("parts")
    written = [written] if isinstance(written, str) else written
    if not isinstance(written, Sequence) or not written:
        raise InputError(f"{where}.parts must list at least one part")
    expanded = [part for entry in written for part in _expanded(entry, names)]
    temperature = _positive(f"{where}.temperature", given["temperature"]) if "temperature" in given else None
    samples = given.get("samples")
    if samples is not None and (not isinstance(samples, int) or isinstance(samples, bool) or samples < 1):
        raise InputError(f"{where}.samples must be a whole number of at least 1, not {samples!r}")
    ways: list[How | None] = []
    parts = []
    for number, entry in enumerate(expanded):
        how, part = _part(f"{where}.parts[{number}]", entry, names)
        ways.append(how)
        parts.append(part)
    labels = [part.name for part in parts]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"{where}.parts: {label!r} stands there twice. Write it once, with all that it shall get")
    how = _one_way(where, ways, labels, temperature is not None)
    if samples is not None and how == "epochs":
        raise InputError(f"{where}.samples goes with weight or quota: with epochs the parts say how many there are")
    if how == "quota" and where != "mixture":
        raise InputError(f"{where}: quota is for the parts of the whole mixture only. Use weight here")
    if temperature is not None and how != "weight":
        raise InputError(f"{where}.temperature goes with weight, not with {how}. Take one of them out")
    name = str(given.get("name") or "+".join(labels))
    return Part(name, amount, None, tuple(parts), how, temperature, samples)


def _expanded(entry: Any, names: Sequence[str]) -> list[Any]:
    """`all` with its suffix as one entry a source."""
    if isinstance(entry, str) and re.fullmatch(r"all([*%].*)?", entry.strip()):
        return [f"{name}{entry.strip()[3:]}" for name in names]
    return [entry]


def _part(where: str, entry: Any, names: Sequence[str]) -> tuple[How | None, Part]:
    """The part, and in which way its amount is given (None: not at all)."""
    if isinstance(entry, str):
        return _suffixed(where, entry, names)
    if not isinstance(entry, Mapping):
        raise InputError(f"{where} must be a name such as 'photos*2', or a mapping, not {entry!r}")
    _known_keys(where, entry, PART_KEYS)
    if ("source" in entry) == ("parts" in entry):
        raise InputError(f"{where} needs either source or parts")
    given = [key for key in AMOUNTS if key in entry]
    if len(given) > 1:
        raise InputError(f"{where} has {' and '.join(given)}. Give one of them")
    how, amount = _amount(where, given[0], entry[given[0]]) if given else (None, Fraction(1))
    if "parts" in entry:
        return how, _node(where, entry, names, amount)
    for key in ("temperature", "samples"):
        if key in entry:
            raise InputError(f"{where}.{key} is for a part that has parts, not for a source")
    source = _source(where, str(entry["source"]), names)
    return how, Part(str(entry.get("name") or source), amount, source)


def _suffixed(where: str, entry: str, names: Sequence[str]) -> tuple[How | None, Part]:
    match = _WRITTEN.fullmatch(entry.strip())
    if match is None:
        raise InputError(f"{where}: {entry!r} is not NAME, NAME*TIMES or NAME%PERCENT")
    written = written_part(entry)
    source = _source(where, written.pop("source"), names)
    if not written:
        return None, Part(source, Fraction(1), source)
    how, amount = _amount(f"{where} ({entry})", *written.popitem())
    return how, Part(source, amount, source)


def written_part(entry: str) -> dict[str, str]:
    """A part that is written as text, as a mapping; of text that is no part only its `source`."""
    match = _WRITTEN.fullmatch(entry.strip())
    if match is None:
        return {"source": entry}
    amount = {} if match["sign"] is None else {"epochs" if match["sign"] == "*" else "percent": match["number"]}
    return {"source": match["name"].strip(), **amount}


def _source(where: str, name: str, names: Sequence[str]) -> str:
    if name not in names:
        raise InputError(f"{where}: no source {name!r} in mixture.sources.{suggestion(name, names)}")
    return name


def _amount(where: str, key: str, value: Any) -> tuple[How, Fraction]:
    amount = _positive(f"{where}: {key}", value)
    if key == "percent":
        if amount > 100:
            raise InputError(
                f"{where}: {value} % is more than all. For more than one epoch write *{float(amount) / 100:g}"
            )
        return HOW[key], amount / 100
    if key == "quota" and amount.denominator != 1:
        raise InputError(f"{where}: quota is a whole number of samples, not {value}")
    return HOW[key], amount


def _positive(where: str, value: Any) -> Fraction:
    try:
        number = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{where} must be a number, not {value!r}") from None
    if number <= 0:
        raise InputError(f"{where} must be above 0, not {value}")
    return number


def _one_way(where: str, ways: Sequence[How | None], labels: Sequence[str], tempered: bool) -> How:
    """How the parts of a node are weighed; parts that say nothing count once, under a temperature with weight 1."""
    said: set[How] = {way for way in ways if way is not None}
    if len(said) > 1:
        raise InputError(
            f"{where}.parts mixes {' and '.join(sorted(said))}. Use one way, or nest a mixture of the other"
        )
    unsaid: How = "weight" if tempered else "epochs"
    way: How = said.pop() if said else unsaid
    if way != "epochs" and not tempered and None in ways:
        raise InputError(f"{where}.parts: {labels[ways.index(None)]!r} has no {way}, others have. Give one to each")
    return way

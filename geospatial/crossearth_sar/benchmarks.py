"""The 22 source -> target benchmarks and their data sets, read from `benchmarks.yaml` (spec section 3). Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mmzoo.errors import InputError, suggestion

FILE = Path(__file__).with_name("benchmarks.yaml")
UNPUBLISHED, UNVERIFIED = "unpublished", "unverified"


@dataclass(frozen=True)
class Layout:
    """Where the files of a data set lie, relative to its folder.

    source: who says so, or UNVERIFIED. images: glob; masks: {old: new}, put in an image's path one after the other to
    get its mask's. None: not known. splits: name -> file of the lines "image name,mask name".
    """

    source: str
    images: str | None = None
    masks: Mapping[str, str] | None = None
    splits: Mapping[str, str] | None = None

    @property
    def verified(self) -> bool:
        """Whether a public source says it."""
        return self.source != UNVERIFIED


@dataclass(frozen=True)
class DataSet:
    """A public data set. classes: its own, in order. ids: class -> ids in its masks; palette: class -> RGB; None: not
    known here. ignore: ids that mean not labelled. tolerance: largest distance in RGB from a colour of the palette.
    group: regex whose first group names what must stay in one split. get: where it is had.
    """

    name: str
    title: str
    sensor: str
    size: str
    reference: str
    get: str
    layout: Layout
    classes: tuple[str, ...]
    letter: str | None = None
    ids: Mapping[str, tuple[int, ...]] | None = None
    palette: Mapping[str, tuple[int, int, int]] | None = None
    ignore: tuple[int, ...] = (255,)
    tolerance: float = 0.0
    group: str | None = None
    domain: str | None = None

    @property
    def coloured(self) -> bool:
        """Whether its masks are pictures."""
        return self.tolerance > 0


@dataclass(frozen=True)
class Side:
    """A data set, or a part or channel of it. data_set None: unpublished."""

    data_set: str | None
    view: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """A source -> target pair. gap: the paper's label. mapping: data set -> {its class: shared class}; empty: its own
    classes. unpublished: what the public text leaves open.
    """

    name: str
    gap: str
    source: Side
    target: Side
    mapping: Mapping[str, Mapping[str, str]]
    unpublished: str

    @property
    def known(self) -> bool:
        """Whether its data sets are published."""
        return self.source.data_set is not None and self.target.data_set is not None

    def classes(self) -> tuple[str, ...]:
        """The shared classes in order. ValueError: its data sets are unpublished."""
        if self.source.data_set is None:
            raise ValueError(f"the data sets of {self.name} are unpublished")
        if not self.mapping:
            return data_sets()[self.source.data_set].classes
        return tuple(dict.fromkeys(self.mapping[self.source.data_set].values()))

    def shared_class(self, data_set: str) -> Mapping[str, str]:
        """{class of the data set: shared class}; a class that is missing is not looked at."""
        return self.mapping[data_set] if self.mapping else {name: name for name in data_sets()[data_set].classes}


@cache
def _content() -> Mapping[str, Any]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


@cache
def data_sets() -> dict[str, DataSet]:
    """All data sets by name."""
    return {name: _data_set(name, given) for name, given in _content()["datasets"].items()}


@cache
def benchmarks() -> dict[str, Benchmark]:
    """All 22 by name, in the order of the paper's gaps."""
    mappings, found = _content()["mappings"], {}
    for gap, given in _content()["gaps"].items():
        for name, source, target in given["pairs"]:
            sides = _side(source), _side(target)
            found[name] = Benchmark(name, gap, *sides, mappings[given["mapping"]], given["unpublished"])
    return found


def get_benchmark(name: str) -> Benchmark:
    """By name, upper and lower case alike. InputError: none of that name."""
    return benchmarks()[_known_name(name, benchmarks(), "benchmark")]


def get_data_set(name: str) -> DataSet:
    """By name. InputError: none of that name."""
    return data_sets()[_known_name(name, data_sets(), "data set")]


def _known_name(name: str, known: Collection[str], what: str) -> str:
    for own in known:
        if own.lower() == name.lower():
            return own
    raise InputError(f"there is no {what} {name!r}.{suggestion(name, known)} See: mmzoo benchmarks list")


def _side(text: str) -> Side:
    if text == UNPUBLISHED:
        return Side(None)
    name, _, view = text.partition(": ")
    return Side(name, view or None)


def _data_set(name: str, given: Mapping[str, Any]) -> DataSet:
    ids, palette = (None if given.get(key) == UNPUBLISHED else given.get(key) for key in ("ids", "palette"))
    plain = {key: given[key] for key in ("title", "sensor", "size", "reference", "get")}
    return DataSet(
        name=name,
        **plain,
        layout=Layout(**given["layout"]),
        classes=tuple(given["classes"]),
        letter=given.get("letter"),
        ids=None if ids is None else {key: tuple(numbers) for key, numbers in ids.items()},
        palette=None if palette is None else {key: tuple(colour) for key, colour in palette.items()},
        ignore=tuple(given.get("ignore", (255,))),
        tolerance=float(given.get("tolerance", 0)),
        group=given.get("group"),
        domain=given.get("domain"),
    )

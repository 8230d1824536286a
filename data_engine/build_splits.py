"""Splits of a build from several sources: samples that share a picture, or a group, stay together.

Who stays together is found over all sources; the lowest hash of such a set is its name, and the name's hash decides.
A source with a fixed split takes its sets with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_engine.build_config import PlacedSource
from data_engine.splits import groups_of, split_by_hash
from mmzoo.errors import InputError


class _Sets:
    """Names that were joined, each set known by its lowest name (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        path = []
        while (parent := self._parent.setdefault(name, name)) != name:
            path.append(name)
            name = parent
        for each in path:
            self._parent[each] = name
        return name

    def join(self, first: str, second: str) -> None:
        low, high = sorted((self.find(first), self.find(second)))
        self._parent[high] = low


def split_rows(
    rows: Sequence[Mapping[str, Any]], placed: Sequence[PlacedSource], val_fraction: float
) -> tuple[list[str], list[str]]:
    """The split of each row of the parts, and the name of the set it belongs to.

    InputError: two fixed splits claim one set, a leak; a wanted split would be empty; a group's pattern fits no name.
    """
    by_name = {each.source.name: each for each in placed}
    for each in placed:
        groups_of([name for row in rows if row["source"] == each.source.name for name in row["names"]], each.group)
    found = joined_sets(rows, by_name)
    fixed = _fixed(rows, found, by_name)
    free = [name for name in found if name not in fixed]
    by_hash = dict(zip(free, split_by_hash(free, val_fraction), strict=True)) if free else {}
    return [fixed[name][0] if name in fixed else by_hash[name] for name in found], found


def joined_sets(rows: Sequence[Mapping[str, Any]], placed: Mapping[str, PlacedSource]) -> list[str]:
    """The name of the set of each row. `placed`: by the name of the source."""
    sets = _Sets()
    for row in rows:
        for name in _names(row, placed[row["source"]])[1:]:
            sets.join(row["hashes"][0], name)
    return [sets.find(row["hashes"][0]) for row in rows]


def _names(row: Mapping[str, Any], placed: PlacedSource) -> list[str]:
    matches = (placed.group.search(name) for name in row["names"]) if placed.group else ()
    groups = [match.group(1) for match in matches if match and match.group(1) is not None]
    return [*row["hashes"], *(f"~{placed.source.name}/{group}" for group in groups)]  # ~ sorts behind every hash


def _fixed(
    rows: Sequence[Mapping[str, Any]], found: Sequence[str], by_name: Mapping[str, PlacedSource]
) -> dict[str, tuple[str, str]]:
    """{set: (split, key of the row that claims it)} of the sources with a fixed split."""
    fixed: dict[str, tuple[str, str]] = {}
    for row, name in zip(rows, found, strict=True):
        split = by_name[row["source"]].split
        if split is None:
            continue
        claimed, key = fixed.setdefault(name, (split, row["key"]))
        if claimed != split:
            raise InputError(
                f"leak: {key} ({claimed}) and {row['key']} ({split}) share a picture, a text or a group. "
                "Give both sources one split, or remove one of the two"
            )
    return fixed

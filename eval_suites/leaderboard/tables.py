"""Records that may be compared, as tables: one for each suite, version, settings and data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval_suites.finding import find_suites
from eval_suites.leaderboard.comparing import Comparison, compare_all, letters
from eval_suites.leaderboard.gathering import Entry
from eval_suites.record import DataStamp, Metric, SuiteStamp
from mmzoo.errors import InputError


@dataclass(frozen=True)
class Column:
    """A metric of a table. comparisons: of its rows, pair by pair; empty where neither direction is better."""

    name: str
    unit: str
    higher_is_better: bool | None
    comparisons: Sequence[Comparison] = ()


@dataclass(frozen=True)
class Row:
    """A model. name: distinct in the table. tied: metric -> letters; rows that share one are not told apart."""

    entry: Entry
    name: str
    tied: Mapping[str, str]

    def metric(self, name: str) -> Metric | None:
        """The cell; None when the record has no such metric."""
        return self.entry.record.metric(name)


@dataclass(frozen=True)
class Table:
    """key: equal for equal protocols and data, and what links point to. absent: metric -> why no row has it."""

    key: str
    suite: SuiteStamp
    data: DataStamp
    columns: Sequence[Column]
    rows: Sequence[Row]
    absent: Mapping[str, str]

    @property
    def shown(self) -> list[Column]:
        """The columns that a page has room for: those of the suite's headline metrics, or all where it names none."""
        suite = find_suites().get(self.suite.name)
        headline = suite.headline if suite else ()
        return [one for one in self.columns if not headline or one.name.partition("@")[0] in headline]

    def further(self) -> str:
        """The names of the metrics that only the files hold, without their slices."""
        shown = {one.name for one in self.shown}
        return ", ".join(dict.fromkeys(one.name.partition("@")[0] for one in self.columns if one.name not in shown))

    @property
    def leading(self) -> str | None:
        """The column that the rows are in the order of; None: that of their names."""
        return next((column.name for column in self.columns if column.higher_is_better is not None), None)

    def absent_by_reason(self) -> list[tuple[str, str]]:
        """(why, the metrics) of what no row has."""
        found: dict[str, list[str]] = {}
        for name, reason in self.absent.items():
            found.setdefault(reason, []).append(name)
        return [(reason, ", ".join(names)) for reason, names in found.items()]

    @property
    def judged(self) -> int:
        """How many pairs were judged, over all columns."""
        return sum(one.judged for column in self.columns for one in column.comparisons)


def make_tables(entries: Sequence[Entry]) -> list[Table]:
    """The tables, by suite, version and size of the data; the rows of each best first in its first column."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.record.comparable, []).append(entry)
    tables = [_table(key, group) for key, group in groups.items()]
    return sorted(tables, key=lambda one: (one.suite.name, one.suite.version, one.data.name, -one.data.n, one.key))


def _table(key: str, entries: Sequence[Entry]) -> Table:
    found = list(_columns(entries))
    measured = [column for column in found if any(_value(entry, column.name) is not None for entry in entries)]
    ordered = _ordered(entries, measured)
    names = _names(ordered)
    columns = [_compared(column, ordered) for column in measured]
    tied = {column.name: _letters(column, ordered) for column in columns}
    rows = [
        Row(entry, names[number], {name: marks[number] for name, marks in tied.items() if number in marks})
        for number, entry in enumerate(ordered)
    ]
    absent = {column.name: _reason(entries, column.name) for column in found if column not in measured}
    first = ordered[0].record
    return Table(key, first.suite, first.data, columns, rows, absent)


def _columns(entries: Sequence[Entry]) -> Iterator[Column]:
    """The metrics of all entries, in order of first appearance. InputError: two of one name mean different things."""
    known: dict[str, tuple[Column, Entry]] = {}
    for entry in entries:
        for metric in entry.record.metrics:
            column = Column(metric.name, metric.unit, metric.higher_is_better)
            before, other = known.setdefault(metric.name, (column, entry))
            if before != column:
                raise InputError(
                    f"{metric.name} has another unit or direction in {entry.path} than in {other.path}, under one "
                    f"suite version. Measure one of them again: mmzoo eval run"
                )
    return (column for column, _ in known.values())


def _value(entry: Entry, name: str) -> float | None:
    metric = entry.record.metric(name)
    return metric.value if metric is not None else None


def goodness(value: float | None, higher_is_better: bool | None) -> float:
    """A number that is larger for a better value; -inf for none."""
    if value is None:
        return -math.inf
    return -value if higher_is_better is False else value


def _ordered(entries: Sequence[Entry], columns: Sequence[Column]) -> list[Entry]:
    leading = next((column for column in columns if column.higher_is_better is not None), None)
    if leading is None:
        return sorted(entries, key=lambda entry: (entry.record.model.name, entry.digest))
    return sorted(
        entries,
        key=lambda entry: (
            -goodness(_value(entry, leading.name), leading.higher_is_better),
            entry.record.model.name,
            entry.digest,
        ),
    )


def _names(entries: Sequence[Entry]) -> list[str]:
    """The models' names; those of one name get the start of what tells them apart."""
    counts = Counter(entry.record.model.name for entry in entries)
    return [
        entry.record.model.name
        + (f" ({entry.record.model.identity[:8]})" if counts[entry.record.model.name] > 1 else "")
        for entry in entries
    ]


def _compared(column: Column, entries: Sequence[Entry]) -> Column:
    if column.higher_is_better is None:
        return column
    found = compare_all(entries, column.name)
    return Column(column.name, column.unit, column.higher_is_better, found)


def _letters(column: Column, entries: Sequence[Entry]) -> dict[int, str]:
    """Row number -> letters; nothing where no pair could be judged."""
    if not any(one.judged for one in column.comparisons):
        return {}
    measured = [number for number, entry in enumerate(entries) if _value(entry, column.name) is not None]
    best_first = sorted(
        measured, key=lambda number: -goodness(_value(entries[number], column.name), column.higher_is_better)
    )
    return letters(best_first, [(one.first, one.second) for one in column.comparisons if one.told_apart])


def _reason(entries: Sequence[Entry], name: str) -> str:
    found = (entry.record.metric(name) for entry in entries)
    return "; ".join(dict.fromkeys(str(metric.not_measured) for metric in found if metric is not None))


def settings_text(settings: Mapping[str, Any]) -> list[str]:
    """Each setting in a line."""
    return [f"{name}: {_text(value)}" for name, value in settings.items()]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_text(entry)}" for name, entry in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return "none" if value is None else str(value)

"""Reads the `metrics.csv` that the trainer writes into curves."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from mmzoo.errors import InputError
from mmzoo.report.record import Curve

STEP_COLUMN = "step"
#: Columns that say when, not what.
CLOCK_COLUMNS = (STEP_COLUMN, "epoch")
REMEDY = "Name the metrics.csv in the folder of a run."


def read_curves(path: Path) -> dict[str, Curve]:
    """One curve a column of `path`, by its name, in the file's order; columns without a value are left out.

    An empty cell means that nothing was logged at that step: the curve has no point there. A logged nan or inf stays,
    and is drawn as a gap. A last line without its end, as a killed run leaves it, is not read.
    InputError when the file is missing or not such a file.
    """
    rows = csv.reader(io.StringIO(_complete_lines(path)), strict=True)
    points: dict[str, list[tuple[int, float]]] = {}
    try:
        for name in _column_names(rows):
            points[name] = []
        for cells in rows:
            _add_row(points, cells)
    except (ValueError, csv.Error) as fault:
        raise InputError(f"{path}, line {rows.line_num}, is not of a metrics.csv: {fault}. {REMEDY}") from fault
    return {name: _curve(name, found) for name, found in points.items() if name not in CLOCK_COLUMNS and found}


def _complete_lines(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as fault:
        raise InputError(f"{path} cannot be read ({fault.strerror}). {REMEDY}") from fault
    except UnicodeDecodeError as fault:
        raise InputError(f"{path} is no metrics.csv: it is not text. {REMEDY}") from fault
    return text[: text.rfind("\n") + 1]


def _column_names(rows: Iterator[list[str]]) -> list[str]:
    """ValueError when the first line does not name a step."""
    columns = next(rows, [])
    if STEP_COLUMN not in columns:
        raise ValueError(f"it names no column {STEP_COLUMN!r}")
    return columns


def _add_row(points: dict[str, list[tuple[int, float]]], cells: list[str]) -> None:
    """ValueError where a cell is no number, or there are more or fewer than columns."""
    if len(cells) != len(points):
        raise ValueError(f"it has {len(cells)} cells for {len(points)} columns")
    row = dict(zip(points, cells, strict=True))
    step = int(row[STEP_COLUMN])
    for name, cell in row.items():
        if cell:
            points[name].append((step, float(cell)))


def _curve(name: str, points: list[tuple[int, float]]) -> Curve:
    """Rows are in the order of logging, which with accumulated gradients is not always that of the steps."""
    points.sort(key=lambda point: point[0])
    return Curve(name, tuple(step for step, _ in points), tuple(value for _, value in points))

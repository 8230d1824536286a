"""The tables as JSON (everything), CSV (a line a cell) and Markdown (to be read); links are relative to the folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from eval_suites.leaderboard.comparing import RULE
from eval_suites.leaderboard.gathering import Entry, Superseded
from eval_suites.leaderboard.tables import Column, Row, Table, settings_text
from eval_suites.record import RECORD_FILE, DataStamp
from eval_suites.strict_json import to_plain
from eval_suites.wording import basis_text, value_text

SCHEMA = 1
RECORDS = "records"  #: the folder of the copies
CSV_FIELDS = (
    *("table", "suite", "version", "data", "split", "n", "model", "metric", "unit", "higher_is_better", "value"),
    *("low", "high", "level", "n_values", "n_groups", "n_infinite", "tied", "not_measured", "record", "samples"),
)


def record_link(entry: Entry) -> str:
    """Where the copy of the record lies."""
    return f"{RECORDS}/{entry.folder_name}/{RECORD_FILE}"


def samples_link(entry: Entry) -> str:
    """Where the copy of the sample log lies."""
    return f"{RECORDS}/{entry.folder_name}/{entry.record.samples.file}"


def data_text(data: DataStamp) -> str:
    """ "natural, split val, 66 samples"."""
    split = f", split {data.split}" if data.split is not None else ""
    return f"{data.name}{split}, {data.n:,} samples"


def json_text(tables: Sequence[Table], superseded: Sequence[Superseded]) -> str:
    """leaderboard.json."""
    content = {
        "schema": SCHEMA,
        "rule": RULE,
        "tables": [_table(table) for table in tables],
        "superseded": [superseded_content(one) for one in superseded],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def superseded_content(one: Superseded) -> dict[str, Any]:
    """What a superseded record was, and which one counts instead."""
    return {
        "model": one.old.record.model.name,
        "suite": one.old.record.suite.name,
        "date": one.old.record.date,
        "sha256": one.old.digest,
        "by": record_link(one.new),
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "key": table.key,
        "suite": to_plain(table.suite),
        "data": to_plain(table.data),
        "columns": [_column(column, table.rows) for column in table.columns],
        "rows": [_row(row, table.columns) for row in table.rows],
        "not_measured": dict(table.absent),
    }


def _column(column: Column, rows: Sequence[Row]) -> dict[str, Any]:
    named = [
        {**to_plain(one), "first": rows[one.first].name, "second": rows[one.second].name} for one in column.comparisons
    ]
    return {
        "name": column.name,
        "unit": column.unit,
        "higher_is_better": column.higher_is_better,
        "comparisons": named,
    }


def _row(row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    model = row.entry.record.model
    cells = {column.name: _cell(row, column) for column in columns if row.metric(column.name) is not None}
    return {
        "model": row.name,
        "family": model.family,
        "variant": model.variant,
        "revision": model.revision,
        "model_identity": model.identity,
        "date": row.entry.record.date,
        "record": record_link(row.entry),
        "samples": samples_link(row.entry),
        "cells": cells,
    }


def _cell(row: Row, column: Column) -> dict[str, Any]:
    return {**to_plain(row.metric(column.name)), "tied": row.tied.get(column.name, "")}


def csv_text(tables: Sequence[Table]) -> str:
    """leaderboard.csv: one line a cell, absent values empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(line for table in tables for row in table.rows for line in _csv_lines(table, row))
    return file.getvalue()


def _csv_lines(table: Table, row: Row) -> Iterator[dict[str, Any]]:
    for column in table.columns:
        if row.metric(column.name) is None:
            continue
        cell = _cell(row, column)
        cell["metric"] = cell.pop("name")
        yield {
            "table": table.key[:12],
            "suite": table.suite.name,
            "version": table.suite.version,
            "data": table.data.name,
            "split": table.data.split,
            "n": table.data.n,
            "model": row.name,
            **cell,
            "record": record_link(row.entry),
            "samples": samples_link(row.entry),
        }


def markdown_text(tables: Sequence[Table], superseded: Sequence[Superseded]) -> str:
    """leaderboard.md."""
    lines = ["# Leaderboard", "", RULE, ""]
    for table in tables:
        lines += [f"## {table.suite.name}, version {table.suite.version}: {data_text(table.data)}", ""]
        lines += [f"- {_escaped(line)}" for line in settings_text(table.suite.settings)]
        lines += ["", *_markdown_table(table), ""]
        lines += [
            f"Not measured: {_escaped(names)} ({_escaped(reason)})." for reason, names in table.absent_by_reason()
        ]
        lines += [""] if table.absent else []
    lines += [
        f"Superseded: {_escaped(one.old.record.model.name)} of {one.old.record.date} "
        f"by the record of {one.new.record.date}."
        for one in superseded
    ]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_table(table: Table) -> Iterator[str]:
    yield "| model | " + " | ".join(_escaped(heading(column)) for column in table.shown) + " |"
    yield "|---|" + "---:|" * len(table.shown)
    for row in table.rows:
        yield f"| {_escaped(row.name)} | " + " | ".join(_markdown_cell(row, column) for column in table.shown) + " |"
    if further := table.further():
        yield ""
        yield f"In leaderboard.csv and in the records also: {_escaped(further)}."


def heading(column: Column) -> str:
    """ "psnr@4 ↑ dB": the arrow points to better."""
    arrow = {True: " ↑", False: " ↓", None: ""}[column.higher_is_better]
    return f"{column.name}{arrow} {column.unit}".rstrip()


def _markdown_cell(row: Row, column: Column) -> str:
    metric = row.metric(column.name)
    if metric is None:
        return "not in its record"
    tied = f" **{row.tied[column.name]}**" if column.name in row.tied else ""
    basis = basis_text(metric) or "rows"
    return f"[{value_text(metric)}]({record_link(row.entry)}){tied} [{basis}]({samples_link(row.entry)})"


def _escaped(text: str) -> str:
    for sign in "\\|[]*_`<":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())

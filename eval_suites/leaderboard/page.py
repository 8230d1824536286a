"""The leaderboard as one HTML file: sortable, offline, and the same bytes for the same records."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

import mmzoo
from eval_suites.leaderboard.comparing import RULE
from eval_suites.leaderboard.files import data_text, record_link, samples_link
from eval_suites.leaderboard.gathering import Superseded
from eval_suites.leaderboard.tables import Column, Row, Table, settings_text
from eval_suites.wording import basis_text, value_text

TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE, SCRIPT = "leaderboard.html.jinja", "sorting.js"


def html_text(tables: Sequence[Table], superseded: Sequence[Superseded]) -> str:
    """leaderboard.html. Its own policy names its only script by hash, and forbids every other and the network."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(__package__ or ""), PackageLoader("mmzoo.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        data_text=data_text,
        settings_text=settings_text,
        record_link=record_link,
        samples_link=samples_link,
        value_text=value_text,
        basis_text=basis_text,
        sort_value=sort_value,
    )
    script = (TEMPLATES / SCRIPT).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(TEMPLATE).render(
        tables=tables,
        superseded=superseded,
        rule=RULE,
        script=script,
        script_hash=f"sha256-{digest}",
        models=len({row.entry.record.model.identity for table in tables for row in table.rows}),
        records=sum(len(table.rows) for table in tables),
        version=mmzoo.__version__,
    )


def sort_value(row: Row, column: Column) -> str:
    """What the script sorts a cell by: a number as JavaScript reads it, or nothing for a cell without a value."""
    metric = row.metric(column.name)
    if metric is None or metric.value is None:
        return ""
    return repr(metric.value) if math.isfinite(metric.value) else ("Infinity" if metric.value > 0 else "-Infinity")

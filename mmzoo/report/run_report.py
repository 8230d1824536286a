"""Writes the run report: one HTML file that opens anywhere, with no network and no script.

Byte-stable: the page is a function of the record alone, so no clock, no random name and no folder enters it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

import mmzoo
from mmzoo.errors import InputError
from mmzoo.report.charts import line_chart
from mmzoo.report.pictures import embed
from mmzoo.report.plots import point_chart, segments
from mmzoo.report.record import CodebookUsage, PictureGrid, RunReport, number

TEMPLATE = "run_report.html.jinja"
#: The page must stay easy to send and to open on a phone.
MAX_BYTES = 5_000_000


def write_report(record: RunReport, out: Path) -> Path:
    """Writes `record` as one HTML file at `out` (folders are made) and returns `out`.

    InputError when `out` cannot be written; ValueError when the page would pass 5 MB or a grid is ragged. Nothing is
    left half-written.
    """
    # A command line that is not valid text must not cost the report: its odd bytes are shown as escapes.
    page = render(record).encode("utf-8", "backslashreplace")
    if len(page) > MAX_BYTES:
        raise ValueError(
            f"the report would be {len(page) / 1e6:.1f} MB, the limit is {MAX_BYTES / 1e6:.0f} MB: show fewer pictures"
        )
    partial = out.parent / f".{out.name}.{os.getpid()}.partial"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(page)
        partial.replace(out)
    except OSError as fault:
        with contextlib.suppress(OSError):  # where the folder itself cannot be, there is nothing to remove
            partial.unlink(missing_ok=True)
        raise InputError(
            f"the report {out} cannot be written ({fault.strerror}). Choose a file in a folder you may write to."
        ) from fault
    return out


def render(record: RunReport) -> str:
    """The page as text."""
    for grid in record.grids:
        _check_grid(grid)
    for usage in record.codebooks:
        _check_usage(usage)
    environment = Environment(
        loader=PackageLoader("mmzoo.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(embed=embed, number=number, segments=segments)
    charts = [line_chart(panel) for panel in record.curves]
    points = [point_chart(panel) for panel in record.points]
    template = environment.get_template(TEMPLATE)
    return template.render(record=record, charts=charts, points=points, version=mmzoo.__version__)


def _check_grid(grid: PictureGrid) -> None:
    for row in grid.rows:
        if len(row.pictures) != len(grid.columns):
            raise ValueError(
                f"row {row.label!r} of {grid.title!r} has {len(row.pictures)} pictures for {len(grid.columns)} columns"
            )


def _check_usage(usage: CodebookUsage) -> None:
    if len(usage.used) != len(usage.perplexity):
        raise ValueError(
            f"{usage.title!r} has {len(usage.used)} shares but {len(usage.perplexity)} perplexities: one each a level"
        )

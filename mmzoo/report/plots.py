"""Bars and points as plain geometry in pixels; the template draws them as SVG inside the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmzoo.report.axes import Axis, Tick, value_axis
from mmzoo.report.charts import HEIGHT, RIGHT, TOP, WIDTH, left_of
from mmzoo.report.plot_record import PointPanel, ShareBars

#: px where the frame of points ends; below it are the ticks and the name of the axis.
BOTTOM = 154


@dataclass(frozen=True)
class Cloud:
    """The points (x, y), in px, of one group."""

    name: str
    colour: int
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class PointChart:
    """A chart in px of a width x height drawing; the frame is left..right by top..bottom."""

    title: str
    x_label: str
    y_label: str
    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    clouds: tuple[Cloud, ...]


def point_chart(panel: PointPanel) -> PointChart:
    """The geometry of `panel`, rounded to a tenth of a px."""
    y_axis = value_axis(_together([group.y for group in panel.groups]), BOTTOM, TOP)
    left = left_of(y_axis)
    x_axis = value_axis(_together([group.x for group in panel.groups]), left, RIGHT)
    clouds = tuple(
        Cloud(group.name, colour, _placed(group.x, group.y, x_axis, y_axis))
        for colour, group in enumerate(panel.groups)
    )
    return PointChart(
        title=panel.title,
        x_label=panel.x_label,
        y_label=panel.y_label,
        width=WIDTH,
        height=HEIGHT,
        left=left,
        right=RIGHT,
        top=TOP,
        bottom=BOTTOM,
        x_ticks=x_axis.ticks,
        y_ticks=y_axis.ticks,
        clouds=clouds,
    )


def _together(parts: Sequence[Sequence[float]]) -> np.ndarray:
    return np.concatenate([np.asarray(part, np.float64) for part in parts] or [np.empty(0)])


def _placed(x: Sequence[float], y: Sequence[float], across: Axis, up: Axis) -> tuple[tuple[float, float], ...]:
    places = across.place(np.asarray(x, np.float64)), up.place(np.asarray(y, np.float64))
    return tuple(zip(*(axis.tolist() for axis in places), strict=True))


@dataclass(frozen=True)
class Segment:
    """A part of a bar, in per cent of its length."""

    part: str
    colour: int
    start: float
    length: float


def segments(bars: ShareBars) -> list[tuple[str, tuple[Segment, ...]]]:
    """(label, parts of the bar) of each row, rounded to a hundredth of a per cent."""
    return [(label, _segments(bars.parts, shares)) for label, shares in bars.rows]


def _segments(parts: Sequence[str], shares: Sequence[float]) -> tuple[Segment, ...]:
    ends = [0.0, *(round(100 * float(end), 2) for end in np.cumsum(shares))]
    return tuple(
        Segment(part, colour, ends[colour], round(ends[colour + 1] - ends[colour], 2))
        for colour, part in enumerate(parts)
    )

"""Bars and points of a run report: what they refuse, and where they are drawn."""

from __future__ import annotations

import pytest

from mmzoo.report.plot_record import PointGroup, PointPanel, ShareBars
from mmzoo.report.plots import point_chart, segments
from mmzoo.report.record import RunReport
from mmzoo.report.run_report import render


def test_bars_lie_end_to_end():
    bars = ShareBars("use", ["a", "b", "c"], [("row", (0.25, 0.0, 0.75)), ("thirds", (1 / 3, 1 / 3, 1 / 3))])
    (label, pieces), (_, thirds) = segments(bars)
    assert label == "row"
    assert [(piece.part, piece.start, piece.length) for piece in pieces] == [("a", 0, 25), ("b", 25, 0), ("c", 25, 75)]
    assert sum(piece.length for piece in thirds) == pytest.approx(100)
    assert [piece.start for piece in thirds] == [0, 33.33, 66.67]


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.5, -0.5), (1.0,)])
def test_shares_that_are_none(shares):
    with pytest.raises(ValueError, match="row"):
        ShareBars("use", ["a", "b"], [("row", shares)])


def test_points_lie_within_the_frame_and_upwards():
    panel = PointPanel("p", "x", "y", [PointGroup("a", (0, 1), (0, 2)), PointGroup("b", (10,), (1,))])
    chart = point_chart(panel)
    (low, high), (other,) = (cloud.points for cloud in chart.clouds)
    assert chart.left <= low[0] < high[0] < other[0] <= chart.right
    assert chart.top <= high[1] < other[1] < low[1] <= chart.bottom


@pytest.mark.parametrize(("x", "y"), [((1,), ()), ((float("nan"),), (1,))])
def test_points_that_are_none(x, y):
    with pytest.raises(ValueError, match="group"):
        PointGroup("group", x, y)


def test_no_more_colours_than_can_be_told_apart():
    with pytest.raises(ValueError, match="split it"):
        PointPanel("p", "x", "y", [PointGroup("g", (), ())] * 7)


def test_the_page_shows_both_and_escapes_their_names():
    record = RunReport(
        "t",
        "s",
        "c",
        bars=[ShareBars("use", ["<a>", "b"], [("row & row", (0.25, 0.75))])],
        points=[PointPanel("cloud", "across", "up", [PointGroup("g", (1, 2), (3, 4))])],
    )
    page = render(record)
    assert page.count('<circle class="point"') == 2
    assert 'x="25.0" width="75.0"' in page
    assert "&lt;a&gt;" in page
    assert "row &amp; row" in page
    assert 'href="#shares"' in page
    assert 'id="shares"' not in render(RunReport("t", "s", "c"))

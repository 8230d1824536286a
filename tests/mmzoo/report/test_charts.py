import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmzoo.report.charts import BOTTOM, RIGHT, TOP, line_chart
from mmzoo.report.record import Curve, CurvePanel

NAN = float("nan")


def curve(values, name="loss", first=1):
    return Curve(name, tuple(range(first, first + len(values))), tuple(values))


def chart(*curves, **options):
    return line_chart(CurvePanel("Loss", curves, **options))


def xy(stroke):
    return [tuple(map(float, point.split(","))) for point in stroke.split()]


def noisy(length, seed=0):
    return np.random.default_rng(seed).normal(size=length)


def test_a_straight_line_in_closed_form():
    drawn = chart(Curve("loss", (0, 50, 100), (0.0, 5.0, 10.0)))
    assert (drawn.left, drawn.top, drawn.right, drawn.bottom) == (40, 10, 328, 170)
    # 0..10 on 0..10.4: 4 % of room above, none below zero
    assert drawn.lines[0].strokes == (f"40,170 184,{170 - 160 * 5 / 10.4:.1f} 328,{170 - 160 * 10 / 10.4:.1f}",)
    assert [(tick.position, tick.label) for tick in drawn.x_ticks] == [
        (40.0, "0"),
        (97.6, "20"),
        (155.2, "40"),
        (212.8, "60"),
        (270.4, "80"),
        (328.0, "100"),
    ]
    assert [tick.label for tick in drawn.y_ticks] == ["0", "5", "10"]


def test_wide_labels_push_the_frame_aside():
    assert chart(curve([1_000_100.0, 1_000_900.0])).left > chart(curve([1.0, 2.0])).left + 10


def test_a_gap_breaks_the_line_and_is_counted():
    drawn = chart(curve([1.0, 2.0, NAN, float("inf"), 3.0, 4.0, NAN, 5.0]))
    assert [len(xy(stroke)) for stroke in drawn.lines[0].strokes] == [2, 2]
    assert drawn.left_out == 3


def test_few_values_are_dots_many_are_not_but_a_lone_one_always_is():
    assert len(chart(curve(range(12))).lines[0].dots) == 12
    assert chart(curve(range(13))).lines[0].dots == ()
    alone = chart(curve([*range(20), NAN, 5.0, NAN, *range(20)])).lines[0]
    assert (len(alone.dots), len(alone.strokes)) == (1, 2)


def test_a_logarithmic_chart_leaves_out_what_is_not_positive():
    values = [0.0, -1.0, 1.0, 10.0, 100.0]
    drawn = chart(curve(values), logarithmic=True)
    points = xy(drawn.lines[0].strokes[0])
    assert (drawn.left_out, drawn.logarithmic, len(points)) == (2, True, 3)
    assert points[0][1] - points[1][1] == pytest.approx(points[1][1] - points[2][1], abs=0.11)
    assert chart(curve(values)).left_out == 0


def test_a_curve_that_ends_in_nan_ends_before_the_run():
    drawn = chart(curve([1.0, 2.0, 3.0, NAN, NAN]))
    assert xy(drawn.lines[0].strokes[0])[-1][0] < RIGHT - 100
    assert drawn.lines[0].last == "nan"


def test_the_last_value_carries_the_unit_and_an_empty_curve_has_none():
    drawn = chart(curve([17.0, 18.834], "held out"), Curve("later", (), ()), unit="dB")
    assert [line.last for line in drawn.lines] == ["18.83 dB", "no value"]


def test_series_keep_their_order_as_colours():
    drawn = chart(*(curve([index, 2 * index], str(index)) for index in range(5)))
    assert [(line.name, line.colour) for line in drawn.lines] == [(str(index), index) for index in range(5)]


def test_a_long_noisy_curve_is_smoothed_and_stays_visible():
    values = 5 + noisy(400)
    drawn = chart(curve(values))
    strong, faint = (
        np.array(xy(drawn_as[0]))[:, 1] for drawn_as in (drawn.lines[0].strokes, drawn.lines[0].faint_strokes)
    )
    assert drawn.smoothed
    assert np.std(strong) < np.std(faint) / 3
    assert np.mean(strong) == pytest.approx(np.mean(faint), abs=5)


def test_smooth_short_or_faintly_noisy_curves_are_left_alone():
    assert not chart(curve(np.exp(-np.arange(400) / 50))).smoothed
    assert not chart(curve(noisy(30))).smoothed
    assert not chart(curve(np.linspace(10, 0, 400) + 0.001 * noisy(400))).smoothed


def test_the_moving_mean_neither_crosses_gaps_nor_cuts_a_steep_start():
    values = noisy(300)
    values[0], values[150] = 60.0, NAN
    strokes = chart(curve(values)).lines[0].strokes
    flat = chart(curve(np.r_[np.zeros(60) + np.tile([0, 1], 30), NAN, np.full(60, 40.0)])).lines[0].strokes
    assert len(strokes) == len(flat) == 2
    assert xy(strokes[0])[0][1] == pytest.approx(BOTTOM - 160 * (60 - low_of(values)) / span_of(values), abs=0.2)
    assert xy(flat[0])[-1][1] - xy(flat[1])[0][1] > 140, "the jump at the gap must stay sharp"


def test_a_stretch_of_zeros_in_a_noisy_curve_is_drawn_at_zero():
    drawn = chart(curve([*(3 + noisy(200)), NAN, *[0.0] * 50]))
    zero = next(tick.position for tick in drawn.y_ticks if tick.label == "0")
    assert {y for _, y in xy(drawn.lines[0].strokes[1])} == {zero}


def low_of(values):
    return np.nanmin(values) - 0.04 * (np.nanmax(values) - np.nanmin(values))


def span_of(values):
    return 1.08 * (np.nanmax(values) - np.nanmin(values))


def test_a_long_curve_keeps_its_extremes_in_few_points():
    values = noisy(100_000)
    values[77_777] = 30.0
    drawn = chart(curve(values))
    points = xy(drawn.lines[0].faint_strokes[0])
    assert len(points) < 1_300
    assert min(y for _, y in points) == pytest.approx(TOP + 160 * 0.04 / 1.08, abs=0.1)


@given(
    st.lists(st.lists(st.floats(), max_size=60), max_size=5),
    st.booleans(),
    st.integers(0, 10**9),
    st.integers(1, 10**6),
)
def test_whatever_the_values_all_is_drawn_inside_the_frame(series, logarithmic, first, stride):
    curves = [Curve("a", tuple(first + stride * at for at in range(len(values))), tuple(values)) for values in series]
    drawn = chart(*curves, logarithmic=logarithmic)
    strokes = [stroke for line in drawn.lines for stroke in line.strokes + line.faint_strokes]
    points = [point for stroke in strokes for point in xy(stroke)] + [dot for line in drawn.lines for dot in line.dots]
    assert all(drawn.left <= x <= drawn.right and drawn.top <= y <= drawn.bottom for x, y in points)
    assert all(drawn.left <= tick.position <= drawn.right for tick in drawn.x_ticks)
    assert all(drawn.top <= tick.position <= drawn.bottom for tick in drawn.y_ticks)
    finite = [value for values in series for value in values if np.isfinite(value) and (value > 0 or not logarithmic)]
    assert drawn.left_out == sum(map(len, series)) - len(finite)
    assert bool(drawn.y_ticks) == bool(points) == bool(finite)


def test_equal_panels_give_equal_charts():
    assert chart(curve(noisy(500))) == chart(curve(noisy(500)))

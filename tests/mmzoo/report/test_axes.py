import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmzoo.report.axes import nice_ticks, step_axis, value_axis

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


def labels(axis):
    return [tick.label for tick in axis.ticks]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 600, ["0", "200", "400", "600"]),
        (0, 2000, ["0", "500", "1k", "1.5k", "2k"]),
        (-1.1, 1.1, ["−1.0", "−0.5", "0.0", "0.5", "1.0"]),
        (0, 3.1e-4, ["0", "1e-4", "2e-4", "3e-4"]),
        (1_000_100, 1_000_900, ["1.0002M", "1.0004M", "1.0006M", "1.0008M"]),
        (0.13, 0.17, ["0.13", "0.14", "0.15", "0.16", "0.17"]),
    ],
)
def test_ticks_are_round_numbers_with_the_digits_they_need(low, high, expected):
    assert nice_ticks(low, high)[1] == expected


def test_a_linear_axis_places_values_by_share():
    axis = value_axis(np.array([50.0, 150.0]), 100, 0)
    assert (axis.low, axis.high) == (46.0, 154.0)
    assert axis.place(np.array([46.0, 100.0, 154.0, np.nan])).tolist()[:3] == [100.0, 50.0, 0.0]
    assert [(tick.position, tick.label) for tick in axis.ticks] == [(96.3, "50"), (50.0, "100"), (3.7, "150")]


def test_an_axis_reaches_down_to_a_near_zero_and_never_crosses_it():
    assert value_axis(np.array([0.2, 1.0]), 100, 0).low == 0
    assert value_axis(np.array([0.0, 1.0]), 100, 0).low == 0
    assert value_axis(np.array([-1.0, -0.2]), 100, 0).high == 0
    assert value_axis(np.array([-0.1, 1.0]), 100, 0).low < -0.1
    assert 0 < value_axis(np.array([0.9, 1.0]), 100, 0).low < 0.9


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 1000], ["1", "10", "100", "1k"]),
        ([1, 60], ["1", "3", "10", "30"]),
        ([1, 9], ["1", "2", "5"]),
        ([2, 3.7], ["2.0", "2.5", "3.0", "3.5"]),
        ([1e-40, 1e3], ["1e-40", "1e-32", "1e-24", "1e-16", "1e-8", "1"]),
        ([5], ["2", "5", "10"]),
    ],
)
def test_logarithmic_ticks(values, expected):
    assert labels(value_axis(np.array(values, dtype=float), 100, 0, logarithmic=True)) == expected


def test_a_logarithmic_axis_gives_every_decade_the_same_room():
    axis = value_axis(np.array([1.0, 1e4]), 0, 1000, logarithmic=True)
    steps = np.diff(axis.place(np.array([1.0, 10.0, 100.0, 1e3, 1e4])))
    assert steps == pytest.approx([1000 / 4.32] * 4, abs=0.11)


@pytest.mark.parametrize(
    ("steps", "ends", "expected"),
    [
        ([1, 600], (0, 600), ["0", "200", "400", "600"]),
        ([100, 600], (100, 600), ["100", "200", "300", "400", "500", "600"]),
        ([7], (6, 8), ["6", "7", "8"]),
        ([3, 4], (3, 4), ["3", "4"]),
        ([0, 100_000], (0, 100_000), ["0", "20k", "40k", "60k", "80k", "100k"]),
    ],
)
def test_steps_are_whole_and_begin_where_the_run_does(steps, ends, expected):
    axis = step_axis(np.array(steps, dtype=float), 40, 328)
    assert ((axis.low, axis.high), labels(axis)) == (ends, expected)


def test_no_values_give_no_ticks():
    assert value_axis(np.empty(0), 100, 0).ticks == step_axis(np.empty(0), 0, 100).ticks == ()


@given(st.lists(finite, min_size=1))
def test_any_finite_values_lie_on_their_axis_with_ticks_that_differ(values):
    check_axis(value_axis(np.array(values), 170, 10), np.array(values))


@given(st.lists(positive, min_size=1))
def test_any_positive_values_lie_on_their_logarithmic_axis(values):
    check_axis(value_axis(np.array(values), 170, 10, logarithmic=True), np.array(values))


def check_axis(axis, values):
    placed = axis.place(values)
    assert ((placed >= 10) & (placed <= 170)).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(placed[order]) <= 0).all(), "greater values must lie higher"
    assert 2 <= len(axis.ticks) <= 7
    assert all(10 <= tick.position <= 170 for tick in axis.ticks)
    assert len({tick.label for tick in axis.ticks}) == len(axis.ticks)
    assert len({tick.position for tick in axis.ticks}) == len(axis.ticks)

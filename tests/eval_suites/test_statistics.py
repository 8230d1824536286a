"""The cluster bootstrap: closed forms, coverage where images matter, and indifference to order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval_suites import statistics
from eval_suites.statistics import Interval, bootstrap_mean, normal_mean

values_and_groups = st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 5)), min_size=1, max_size=30)


def test_the_normal_interval_comes_near_the_bootstraps():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(400), random.integers(1, 5, 400))
    values = random.standard_normal(len(groups)) + random.standard_normal(400)[groups]
    near, drawn = normal_mean(values, groups), bootstrap_mean(values, groups)
    assert near.mean == drawn.mean
    assert (near.n_values, near.n_groups) == (drawn.n_values, drawn.n_groups)
    width = drawn.high - drawn.low
    assert abs(near.low - drawn.low) < 0.05 * width
    assert abs(near.high - drawn.high) < 0.05 * width
    assert normal_mean(np.ones(3), np.zeros(3)).low is None


def test_equal_groups_leave_no_doubt():
    found = bootstrap_mean([1.0, 3.0] * 4, [name for name in "abcd" for _ in range(2)])
    assert found == Interval(2.0, 2.0, 2.0, 0.95, 8, 4)


def test_two_groups_give_the_three_possible_means():
    """Means 0, 1/2 and 1 with probability 1/4, 1/2, 1/4: the quantiles are known."""
    wide = bootstrap_mean([0.0, 1.0], ["a", "b"], level=0.95)
    assert (wide.mean, wide.low, wide.high) == (0.5, 0.0, 1.0)
    narrow = bootstrap_mean([0.0, 1.0], ["a", "b"], level=0.4)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_groups_weigh_by_their_number_of_values():
    found = bootstrap_mean([0.0, 0.0, 0.0, 4.0], ["a", "a", "a", "b"])
    assert (found.mean, found.low, found.high, found.n_values, found.n_groups) == (1.0, 0.0, 4.0, 4, 2)


def test_the_spread_is_the_standard_error_of_the_group_means():
    random = np.random.default_rng(0)
    means = random.standard_normal(400)
    found = bootstrap_mean(np.repeat(means, 5), np.repeat(np.arange(400), 5), resamples=4000)
    assert found.low is not None
    assert found.high is not None
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * means.std() / 20, rel=0.06)


def test_one_group_has_no_interval():
    assert bootstrap_mean([1.0, 2.0], ["a", "a"]) == Interval(1.5, None, None, 0.95, 2, 1)


def test_infinite_values_are_set_aside_and_counted():
    found = bootstrap_mean([1.0, np.inf, 3.0, np.inf], ["a", "a", "b", "c"])
    assert (found.mean, found.n_values, found.n_groups, found.n_infinite) == (2.0, 2, 2, 2)
    assert bootstrap_mean([np.inf], ["a"]) == Interval(np.inf, None, None, 0.95, 0, 0, 1)


def covered(replications, as_one_group_each):
    """How often the 95 % interval holds the true mean 0 of values that are alike within a group."""
    hits = 0
    for seed in range(replications):
        random = np.random.default_rng(seed)
        values = random.standard_normal((40, 1)) + 0.5 * random.standard_normal((40, 5))
        groups = np.arange(200) if as_one_group_each else np.repeat(np.arange(40), 5)
        found = bootstrap_mean(values.ravel(), groups, resamples=400, seed=seed)
        hits += found.low <= 0 <= found.high
    return hits / replications


def test_the_interval_covers_the_truth_only_when_whole_groups_are_drawn():
    assert 0.91 <= covered(400, as_one_group_each=False) <= 0.98
    assert covered(400, as_one_group_each=True) < 0.75


@pytest.mark.parametrize("at_once", [1, 70, 10**6])
def test_equals_the_plain_bootstrap_when_each_group_has_one_value(monkeypatch, at_once):
    monkeypatch.setattr(statistics, "DRAWS_AT_ONCE", at_once)
    values = np.random.default_rng(1).standard_normal(30)
    random = np.random.default_rng(7)
    means = [values[random.integers(0, 30, 30)].mean() for _ in range(500)]
    found = bootstrap_mean(values, np.arange(30), level=0.9, resamples=500, seed=7)
    assert [found.low, found.high] == pytest.approx(np.quantile(means, [0.05, 0.95]).tolist(), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(values_and_groups, st.randoms(use_true_random=False))
def test_bounds_are_in_order_and_the_order_of_arrival_is_forgotten(pairs, random):
    values, groups = zip(*pairs, strict=True)
    found = bootstrap_mean(values, groups, resamples=50)
    slack = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - slack <= found.mean <= max(values) + slack
    assert (found.low is None) == (len(set(groups)) == 1)
    if found.low is not None:
        assert min(values) - slack <= found.low <= found.high <= max(values) + slack
    random.shuffle(pairs)
    assert bootstrap_mean(*zip(*pairs, strict=True), resamples=50) == found


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.1, 100), min_size=4, max_size=12))
def test_the_mean_lies_within_the_interval_of_symmetric_values(half):
    values = [*half, *(-value for value in half)]
    found = bootstrap_mean(values, range(len(values)), resamples=400)
    assert found.low <= found.mean <= found.high


@pytest.mark.parametrize(
    ("values", "groups", "options", "words"),
    [
        ([], [], {}, "no values"),
        ([1.0], ["a", "b"], {}, "one length"),
        ([np.nan], ["a"], {}, "NaN"),
        ([-np.inf], ["a"], {}, "-inf"),
        ([1.0], ["a"], {"level": 95}, "between 0 and 1"),
        ([1.0], ["a"], {"resamples": 0}, "at least 1"),
    ],
)
def test_nonsense_is_refused(values, groups, options, words):
    with pytest.raises(ValueError, match=words):
        bootstrap_mean(values, groups, **options)

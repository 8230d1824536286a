"""Packing against the recorded bins of the RSCoVLM rule, against its plain form, and against what must always hold."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_engine import packing_reference
from data_engine.pack_balance import balanced
from data_engine.packing import best_fit_decreasing, fill, pack_windows


def goldens(shared, name):
    return json.loads((shared / "parity/rscovlm/packing" / name).read_text())["cases"]


def test_bins_are_the_recorded_ones(shared):
    for case in goldens(shared, "best_fit_decreasing.json"):
        bins = best_fit_decreasing(case["lengths"], case["capacity"])
        assert bins == case["bins"], case["name"]
        within = [length for length in case["lengths"] if length <= case["capacity"]]
        if len(within) == len(case["lengths"]):
            assert fill(within, bins, case["capacity"]) == pytest.approx(case["fill"], abs=1e-12)


def test_groups_of_a_buffer_are_the_recorded_ones(shared):
    for case in goldens(shared, "streaming.json"):
        found = pack_windows(case["lengths"], case["capacity"], case["interval"])
        assert found == case["groups"], case["name"]


lengths = st.lists(st.integers(0, 20), max_size=60)


@settings(max_examples=200, deadline=None)
@given(lengths, st.integers(1, 24), st.integers(1, 70))
@example([0, 0, 0, 1, 1, 0], 1, 2)  # the bin that goes back holds more than a window
def test_fast_and_plain_agree(lengths, capacity, window):
    assert best_fit_decreasing(lengths, capacity) == packing_reference.best_fit_decreasing(lengths, capacity)
    assert pack_windows(lengths, capacity, window) == packing_reference.pack_windows(lengths, capacity, window)


@settings(max_examples=100, deadline=None)
@given(lengths, st.integers(20, 40), st.one_of(st.none(), st.integers(1, 30)), st.data())
def test_every_sample_once_and_none_above_the_capacity(lengths, capacity, window, data):
    visual = np.array([data.draw(st.integers(0, length)) for length in lengths], np.int64)
    sizes = np.array(lengths, np.int64)
    for bins in (packed := pack_windows(lengths, capacity, window), balanced(packed, sizes, visual, capacity)):
        assert sorted(item for members in bins for item in members) == list(range(len(lengths)))
        assert all(sizes[members].sum() <= capacity for members in bins)
        assert [len(members) for members in bins] == [len(members) for members in packed]


def test_balance_brings_visual_tokens_together_and_keeps_the_fill():
    random = np.random.default_rng(0)
    visual = np.exp2(random.uniform(8, 12, 8000)).astype(np.int64)
    sizes = visual + np.exp(random.normal(5.5, 1, 8000)).clip(16, 4000).astype(np.int64)
    packed = pack_windows(sizes, 8192, 1024)
    before, after = (
        np.array([visual[members].sum() for members in bins])
        for bins in (packed, balanced(packed, sizes, visual, 8192))
    )
    assert after.sum() == before.sum()
    assert after.std() < 0.75 * before.std()


def test_a_bin_may_hold_more_than_a_window():
    bins = pack_windows([1] * 1000, 300, 16)
    assert [len(members) for members in bins] == [300, 300, 300, 100]

"""Positions of steps and skips against plain loops that count one by one."""

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.skips import advance, merged, next_positions
from data_engine.steps import Stretch, as_json, continued, from_json, skip_range, stretch_of
from mmzoo.errors import InputError

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=4)


def kept(start, count, skips):
    found = []
    while len(found) < count:
        if not any(low <= start < high for low, high in skips):
            found.append(start)
        start += 1
    return found


@given(ranges, st.integers(0, 60), st.integers(1, 30))
@settings(max_examples=200, deadline=None)
def test_skipped_positions_are_left_out(given_ranges, start, count):
    skips = merged(given_ranges)
    expected = kept(start, count, given_ranges)
    assert next_positions(start, count, skips) == expected
    assert advance(start, count, skips) == expected[-1] + 1
    assert all(earlier[1] < later[0] for earlier, later in pairwise(skips))


def stretch(**changes):
    plain = Stretch(
        step=0, position=0, batch_in_epoch=0, global_batch=4, accumulate=1, epoch_batches=3, ranks=1, seed=0,
        split="train", index="/shards", identity="x",
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def simulated(given_stretch, steps):
    """Lightning's rule: an update after `accumulate` batches, and at the end of an epoch."""
    found, done, position, pending = [], given_stretch.batch_in_epoch, given_stretch.position, []
    if done >= given_stretch.epoch_batches:
        done = 0
    while len(found) < steps:
        positions = kept(position, given_stretch.global_batch, given_stretch.skips)
        position = positions[-1] + 1
        pending.append(positions)
        done += 1
        if done % given_stretch.accumulate == 0 or done == given_stretch.epoch_batches:
            found.append(pending)
            pending = []
        done %= given_stretch.epoch_batches
    return found


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 7), st.integers(0, 7), ranges)
@settings(max_examples=200, deadline=None)
def test_steps_consume_what_training_consumes(batch, accumulate, length, epochs_done, given_ranges):
    done = min(length, epochs_done // accumulate * accumulate)
    one = stretch(
        global_batch=batch, accumulate=accumulate, epoch_batches=length, batch_in_epoch=done, position=5, step=10,
        skips=merged(given_ranges),
    )  # fmt: skip
    assert [one.positions_of(10 + number) for number in range(1, 13)] == simulated(one, 12)


def test_a_resume_without_a_change_adds_nothing_and_a_change_adds_a_stretch():
    first = stretch(accumulate=2)
    history = [first]
    # After 3 updates (2 + 1 + 2 batches), 2 batches into the second epoch.
    again = dataclasses.replace(first, step=3, position=20, batch_in_epoch=2)
    assert continued(history, again) == history
    for change in ({"ranks": 2}, {"position": 24}, {"skips": ((40, 44),)}, {"batch_in_epoch": 1}):
        changed = dataclasses.replace(again, **change)
        assert continued(history, changed) == [first, changed]
    # Going back before a change forgets it.
    assert continued([first, dataclasses.replace(again, ranks=2)], dataclasses.replace(first)) == [first]


def test_the_record_survives_json():
    history = [stretch(), stretch(step=3, skips=((1, 2), (5, 9)))]
    assert from_json(as_json(history)) == history
    with pytest.raises(InputError, match="cannot be read"):
        from_json([{"step": 1}])


def test_steps_are_found_in_their_stretch():
    history = [stretch(step=2), stretch(step=5, position=100)]
    assert stretch_of(history, 5).step == 2
    assert stretch_of(history, 6).positions_of(6) == [[100, 101, 102, 103]]
    assert skip_range(history, 6, 7) == (100, 108)
    for step, words in ((0, "counted from 1"), (2, "begins after step 2")):
        with pytest.raises(InputError, match=words):
            stretch_of(history, step)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.ledger import Ledger, SampleRandomness, epoch_order, rank_window, sample_generator
from data_engine.records import key_of
from mmzoo.errors import InputError

counts = st.integers(1, 40)
seeds = st.integers(0, 2**64 - 1)


@given(counts, seeds, st.integers(0, 10**6))
def test_every_epoch_is_a_permutation(count, seed, epoch):
    assert sorted(epoch_order(count, seed, epoch)) == list(range(count))


@given(counts, seeds)
def test_locate_walks_through_the_epochs(count, seed):
    rows = np.arange(100, 100 + count)
    ledger = Ledger(rows, seed)
    for epoch in (0, 1, 5):
        window = ledger.window(epoch * count, (epoch + 1) * count)
        assert sorted(row for _, _, row in window) == rows.tolist()
        assert {found for _, found, _ in window} == {epoch}
        assert ledger.epoch_of(epoch * count) == epoch


@given(counts, seeds, st.integers(0, 200), st.integers(0, 100), st.booleans())
def test_a_window_is_the_positions_one_by_one(count, seed, start, size, shuffle):
    ledger = Ledger(np.arange(100, 100 + count), seed, shuffle)
    one_by_one = [(position, *ledger.locate(position)) for position in range(start, start + size)]
    assert ledger.window(start, start + size) == one_by_one
    assert all(type(number) is int for slot in ledger.window(start, start + size) for number in slot)


def test_epochs_and_seeds_differ():
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_the_order_is_pinned():
    """A change here breaks the resuming of every run: numpy's Philox words and a stable sort, nothing else."""
    assert epoch_order(10, 0, 0).tolist() == PINNED_ORDER
    assert sample_generator(1, 2, 3).integers(0, 1000, 4).tolist() == PINNED_DRAWS


def test_no_state_but_the_position():
    there, back = Ledger(np.arange(7), 3), Ledger(np.arange(7), 3)
    positions = list(range(30))
    assert [there.locate(p) for p in positions] == [back.locate(p) for p in reversed(positions)][::-1]


def test_unshuffled_keeps_the_order():
    assert [row for _, _, row in Ledger(np.array([4, 9, 2]), 1, shuffle=False).window(0, 7)] == [4, 9, 2, 4, 9, 2, 4]


@given(st.integers(0, 10**9), st.integers(0, 60), st.integers(1, 9))
def test_ranks_tile_the_global_batch(start, size, ranks):
    parts = [rank_window(start, start + size, rank, ranks) for rank in range(ranks)]
    assert [position for part in parts for position in range(*part)] == list(range(start, start + size))
    sizes = [stop - begin for begin, stop in parts]
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=30)
@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_sample_randomness_depends_on_all_three(seed, epoch, position):
    def draw(*where):
        return sample_generator(*where).integers(0, 2**63, 2).tolist()

    assert draw(seed, epoch, position) == draw(seed, epoch, position)
    others = [(seed + 1, epoch, position), (seed, epoch + 1, position), (seed, epoch, position + 1)]
    assert all(draw(*other) != draw(seed, epoch, position) for other in others)


seen = st.lists(st.tuples(st.integers(0, 2**64), st.integers(0, 2**64)), min_size=2, max_size=4)


@settings(max_examples=30)
@given(seeds, seen)
def test_the_fast_generator_draws_the_same_whatever_was_drawn_before(seed, places):
    """Its own state, the odd half of a 64-bit word included, must not leak from one sample into the next."""
    randomness = SampleRandomness(seed)
    for epoch, position in [*places, places[0]]:
        fast, slow = randomness.at(epoch, position), sample_generator(seed, epoch, position)
        assert fast.integers(0, 2**32, 3, np.uint32).tolist() == slow.integers(0, 2**32, 3, np.uint32).tolist()
        assert fast.normal(size=3).tolist() == slow.normal(size=3).tolist()


def test_empty_split_and_negative_position():
    with pytest.raises(InputError, match="empty"):
        Ledger(np.array([], np.int64), 0)
    with pytest.raises(ValueError, match="start at 0"):
        Ledger(np.arange(3), 0).locate(-1)
    with pytest.raises(ValueError, match="start at 0"):
        Ledger(np.arange(3), 0).window(-1, 2)


PINNED_ORDER = [1, 9, 2, 8, 3, 5, 0, 4, 7, 6]
PINNED_DRAWS = [658, 995, 21, 51]


def test_the_key_is_read_back_from_a_sample_id():
    assert key_of("photos/of/mine/cat-12ab34cd@170") == "cat-12ab34cd"

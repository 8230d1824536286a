"""Any shard sizes, ranks, workers and cut points, with broken samples or without: the stream is the uninterrupted one.

Workers are played by pickled copies of the dataset that take turns, as DataLoader deals its batches; real ones are in
the last test.
"""

from __future__ import annotations

import itertools
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_engine.loader import LoaderSettings, make_loader
from data_engine.quarantine import ErrorBudget

STEPS = 8
topologies = st.tuples(st.integers(1, 5), st.integers(0, 3))
tolerant = ErrorBudget(max_broken_share=1.0)


def augmented(sample, random):
    """Bytes that depend on the sample and on the randomness of its position."""
    image = sample.fields["image"]
    top, left = random.integers(0, 3, 2)
    return {"pixels": image[top : top + 2, left : left + 2].astype(np.float32) + random.normal(), "top": int(top)}


class PlayedLoader:
    """A loader whose `workers` copies of the dataset make the batches in turn; ids and bytes are what is compared."""

    def __init__(self, given: LoaderSettings, steps: int) -> None:
        self.loader = make_loader(replace(given, workers=0), augmented, steps)
        dataset = self.loader.dataset
        self.copies = [pickle.loads(pickle.dumps(dataset)) for _ in range(given.workers)] or [dataset]

    def __iter__(self):
        for number, plan in enumerate(self.loader.batch_sampler):
            made = self.copies[number % len(self.copies)].__getitems__(pickle.loads(pickle.dumps(plan)))
            assert made.mistake is None
            self.loader.quarantine.add(made.broken)
            yield made.batch


def fingerprint(parts):
    """What one step consumed over all ranks, in rank order: ids, and the bytes of every tensor."""
    ids = list(itertools.chain.from_iterable(part["sample_ids"] for part in parts))
    tensors = {name: torch.cat([part[name] for part in parts]) for name in ("pixels", "top", "positions")}
    assert len({part["pixels"].shape[1:] for part in parts}) == 1
    return ids, {name: (value.dtype, tuple(value.shape), value.numpy().tobytes()) for name, value in tensors.items()}


def stream(base, ranks, first, last, make):
    """Steps first, ..., last - 1 as `ranks` ranks see them together."""
    start = replace(base, ranks=ranks, start_position=first * base.global_batch)
    loaders = [make(replace(start, rank=rank), last - first) for rank in range(ranks)]
    return [fingerprint(parts) for parts in zip(*loaders, strict=True)]


@st.composite
def cases(draw):
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    legs = draw(st.lists(topologies, min_size=1, max_size=4))
    cuts = sorted(draw(st.sets(st.integers(1, STEPS - 1), min_size=len(legs) - 1, max_size=len(legs) - 1)))
    global_batch = math.lcm(*(ranks for ranks, _ in legs)) * draw(st.integers(1, 3))
    broken = draw(st.sets(st.integers(0, sum(sizes) - 1), max_size=max(0, sum(sizes) - 1)))
    seed, shuffle = draw(st.integers(0, 2**32)), draw(st.booleans())
    chosen = LoaderSettings("", "all", global_batch, seed, shuffle, budget=tolerant)
    return sizes, sorted(broken), list(zip([0, *cuts], [*cuts, STEPS], legs, strict=True)), chosen


@pytest.fixture
def fresh(tmp_path):
    numbers = itertools.count()
    return lambda: tmp_path / str(next(numbers))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases())
def test_stopped_and_resumed_elsewhere_is_the_uninterrupted_stream(exact_shards, spoil, fresh, case):
    sizes, broken, legs, base = case
    folder = exact_shards(fresh(), sizes)
    spoil(folder, broken)
    base = replace(base, index=folder)
    whole = stream(base, 1, 0, STEPS, PlayedLoader)
    pieces = [
        stream(replace(base, workers=workers), ranks, first, last, PlayedLoader)
        for first, last, (ranks, workers) in legs
    ]
    assert list(itertools.chain.from_iterable(pieces)) == whole


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases())
def test_a_broken_sample_changes_nothing_else(exact_shards, spoil, fresh, case):
    sizes, broken, _, base = case
    folder = exact_shards(fresh(), sizes)
    base = replace(base, index=folder)
    sound = list(make_loader(base, augmented, STEPS))
    spoil(folder, broken)
    names = {f"row-{row:04d}" for row in broken}
    for before, after in zip(sound, make_loader(base, augmented, STEPS), strict=True):
        kept = [n for n, name in enumerate(before["sample_ids"]) if name.split("/")[1].split("@")[0] not in names]
        assert after["sample_ids"] == [before["sample_ids"][n] for n in kept]
        for name in ("pixels", "top", "positions"):
            assert torch.equal(after[name], before[name][kept]), name


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases(), st.integers(1, 3))
def test_validation_has_one_order_for_any_topology(exact_shards, spoil, fresh, case, passes):
    """Each pass over the loader, and each topology: the same batches, all rows in stored order, `passes` times."""
    sizes, _, legs, base = case
    folder = exact_shards(fresh(), sizes)
    base = replace(base, index=folder, shuffle=False, passes=passes)

    def rows(found):
        return [name.split("@")[0] for ids, _ in found for name in ids]

    def validated(ranks, workers):
        wide = replace(base, ranks=ranks, workers=workers)
        loaders = [PlayedLoader(replace(wide, rank=rank), None) for rank in range(ranks)]
        return [fingerprint(parts) for parts in zip(*loaders, strict=True)]

    whole = validated(1, 0)
    assert rows(whole) == [f"made/row-{row:04d}" for row in range(sum(sizes))] * passes
    assert all(validated(ranks, workers) == whole for _, _, (ranks, workers) in legs)


@pytest.mark.parametrize(("ranks", "workers"), [(1, 3), (2, 1), (3, 2)])
def test_real_workers_deal_as_the_played_ones(exact_shards, spoil, tmp_path, ranks, workers):
    folder = exact_shards(tmp_path / "shards", [5, 1, 3])
    spoil(folder, [1, 6])
    base = LoaderSettings(folder, "all", 12, seed=9, budget=tolerant, quarantine=tmp_path / "quarantine.jsonl")
    whole = stream(base, 1, 0, STEPS, PlayedLoader)

    def real(given, steps):
        return make_loader(given, augmented, steps)

    assert stream(replace(base, workers=workers), ranks, 3, STEPS, real) == whole[3:]
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 2

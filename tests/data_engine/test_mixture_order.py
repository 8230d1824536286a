"""Mixtures and packs: any shard sizes, ranks, workers, cuts and topologies give the uninterrupted stream.

Workers are played by pickled copies of the dataset that take turns, as DataLoader deals its batches.
"""

from __future__ import annotations

import collections
import itertools
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_engine import over_long
from data_engine.batch_plan import ledger_of
from data_engine.loader import LoaderSettings, ShardLoader, make_loader
from data_engine.mixed_source import MixedIndex, MixedReader
from data_engine.mixture_grammar import read_mixture
from data_engine.mixture_table import consumed_counts
from data_engine.over_long import planned
from data_engine.pack_ledger import Packing
from data_engine.quarantine import ErrorBudget
from data_engine.skips import advance, merged
from mmzoo.errors import InputError

STEPS = 6
tolerant = ErrorBudget(max_broken_share=1.0)
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def varied(index):
    """Lengths from 1 to 9 tokens, a third of them visual or none."""
    rows = np.arange(index.count)
    return np.stack([rows * 7 % 6 + 1, rows * 5 % 4], axis=1)


def long(index):
    return np.full((index.count, 2), 5)


VARIED = f"{__name__}:varied"


def augmented(sample, random):
    image = sample.fields["image"]
    return {"pixels": image[: int(random.integers(1, 4))].astype(np.float32) + random.normal(), "row": len(sample.key)}


def stackable(sample, random):
    return {"pixels": sample.fields["image"].astype(np.float32) + random.normal(), "row": len(sample.key)}


def played(index, given, steps):
    """The batches of one rank, made by `workers` pickled copies in turn."""
    reader = MixedReader(index)
    transform = stackable if index.packing is None else augmented
    loader = make_loader(replace(given, workers=0), transform, steps, reader)
    copies = [pickle.loads(pickle.dumps(loader.dataset)) for _ in range(given.workers)] or [loader.dataset]
    assert isinstance(loader, ShardLoader)
    assert loader.batch_sampler is not None
    for number, plan in enumerate(loader.batch_sampler):
        made = copies[number % len(copies)].__getitems__(pickle.loads(pickle.dumps(plan)))
        assert made.mistake is None
        loader.quarantine.add(made.broken)
        yield made.batch


def raw(value):
    if isinstance(value, torch.Tensor):
        return [(value.dtype, tuple(value.shape[1:]), row.numpy().tobytes()) for row in value]
    return [
        (item.dtype, tuple(item.shape), item.numpy().tobytes()) if hasattr(item, "numpy") else item for item in value
    ]


def fingerprint(parts):
    """What a step consumed over all ranks, in rank order: every key's bytes, and the samples of every pack."""
    keys = [key for key in parts[0] if key not in ("pack_starts", "cu_lengths")]
    found: dict[str, list] = {
        key: list(itertools.chain.from_iterable(raw(part[key]) for part in parts)) for key in keys
    }
    if "pack_starts" in parts[0]:
        found["pack sizes"] = [int(size) for part in parts for size in part["pack_starts"].diff()]
        for part in parts:
            assert part["cu_lengths"].diff().tolist() == part["lengths"].tolist()
    return found


def stream(index, base, ranks, first, last, deal=played):
    """Steps first, ..., last - 1 as `ranks` ranks see them together."""
    position = advance(0, first * base.global_batch, base.skips)
    start = replace(base, ranks=ranks, start_position=position)
    loaders = [deal(index, replace(start, rank=rank), last - first) for rank in range(ranks)]
    return [fingerprint(parts) for parts in zip(*loaders, strict=True)]


@pytest.fixture(scope="module")
def pool(exact_shards, spoil, tmp_path_factory):
    """Shard folders of a few sizes, made once: opening them is what a case costs."""
    root = tmp_path_factory.mktemp("pool")
    made = {}

    def folder(sizes, broken=()):
        key = tuple(sizes), tuple(broken)
        if key not in made:
            made[key] = exact_shards(root / str(len(made)), sizes)
            spoil(made[key], broken)
        return str(made[key])

    return folder


SIZES = ([4], [1, 3, 5], [12, 1], [2, 2, 2, 2])


@st.composite
def mixtures(draw):
    """(sizes of each source, parts, samples of a quota block or 0)."""
    count = draw(st.integers(1, 3))
    sizes = [draw(st.sampled_from(SIZES)) for _ in range(count)]
    names = [f"s{number}" for number in range(count)]
    kind = draw(st.sampled_from(["epochs", "weight", "quota", "nested"]))
    if kind == "epochs":
        return sizes, [f"{name}*{draw(st.sampled_from(['1', '2', '2.5', '0.75']))}" for name in names], 0
    if kind == "nested":
        return (
            sizes,
            [{"source": names[0], "weight": 1}, *([{"parts": names[1:], "weight": 2}] if count > 1 else [])],
            0,
        )
    amounts = [draw(st.integers(1, 3)) for _ in names]
    parts = [{"source": name, kind: amount} for name, amount in zip(names, amounts, strict=True)]
    return sizes, parts, sum(amounts) if kind == "quota" else 0


@settings(quick, max_examples=60)
@given(mixtures(), st.data())
def test_stopped_and_resumed_elsewhere_is_the_uninterrupted_stream(pool, case, data):
    sizes, parts, block = case
    legs = data.draw(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=3))
    cuts = sorted(data.draw(st.sets(st.integers(1, STEPS - 1), min_size=len(legs) - 1, max_size=len(legs) - 1)))
    global_batch = math.lcm(block or 1, *(ranks for ranks, _ in legs))
    over_long = data.draw(st.sampled_from(["drop", "downscale-images", "truncate-text"]))
    packing = None
    if not block and data.draw(st.booleans()):
        window = data.draw(st.sampled_from([None, 3, 8]))
        packing = Packing.read(
            {
                "capacity": 9 if over_long == "downscale-images" else 14,
                "over_long": [over_long, "drop"] if over_long != "drop" else "drop",
                "lengths": VARIED,
                "window": window,
                "balance": data.draw(st.booleans()),
            }
        )
    broken = data.draw(st.sampled_from([(), (), (1,), (0, 2)]))
    mixture = read_mixture({"sources": {f"s{n}": pool(of, broken) for n, of in enumerate(sizes)}, "parts": parts})
    index = MixedIndex.open(mixture, packing)
    seed, shuffle = data.draw(st.integers(0, 2**32)), data.draw(st.booleans())
    spans = st.tuples(st.integers(0, STEPS * global_batch), st.integers(1, 2 * global_batch))
    skips = merged((start, start + size) for start, size in data.draw(st.lists(spans, max_size=2)))
    base = LoaderSettings("", "all", global_batch, seed, shuffle, skips=skips, budget=tolerant)
    whole = stream(index, base, 1, 0, STEPS)
    assert len(whole) == STEPS
    if not broken:
        ledger, end = ledger_of(base, index), advance(0, STEPS * global_batch, skips)
        names = collections.Counter(name.partition("/")[0] for step in whole for name in step["sample_ids"])
        assert consumed_counts(index, ledger, 0, end, skips) == {name: names[name] for name in mixture.sources}
    pieces = []
    for first, last, (ranks, workers) in zip([0, *cuts], [*cuts, STEPS], legs, strict=True):
        fresh = MixedIndex.open(mixture, packing)
        pieces += stream(fresh, replace(base, workers=workers), ranks, first, last)
    assert pieces == whole


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 1), (3, 0)])
def test_real_workers_deal_packs_as_the_played_ones(pool, ranks, workers):
    """A run of two workers that is stopped after two steps goes on elsewhere; a sample in a pack is broken."""
    packing = Packing.read({"capacity": 14, "over_long": "drop", "lengths": VARIED, "window": 8})
    sources = {"s0": pool([12, 1], (1,)), "s1": pool([1, 3, 5])}
    index = MixedIndex.open(read_mixture({"sources": sources, "parts": ["s0", "s1*2"]}), packing)
    base = LoaderSettings("", "all", 6, 9, skips=((14, 20),), budget=tolerant)

    def real(index, given, steps):
        return make_loader(given, augmented, steps, MixedReader(index))

    whole = stream(index, base, 1, 0, STEPS)
    assert max(size for step in whole for size in step["pack sizes"]) > 1
    assert stream(index, replace(base, workers=2), 1, 0, 2, real) == whole[:2]
    assert stream(index, replace(base, workers=workers), ranks, 2, STEPS, real) == whole[2:]


@quick
@given(mixtures(), st.integers(0, 2**32), st.booleans())
def test_an_epoch_holds_exactly_the_shares(pool, case, seed, shuffle):
    sizes, parts, block = case
    mixture = read_mixture({"sources": {f"s{n}": pool(of) for n, of in enumerate(sizes)}, "parts": parts})
    index = MixedIndex.open(mixture)
    ledger = index.ledger("all", seed, shuffle, block or 1)
    shares = index.shares("all")
    assert len(ledger) == sum(share.count for share in shares)
    seen = {share.name: collections.Counter() for share in shares}
    for epoch in range(3):
        rows = ledger.epoch_rows(epoch)
        assert index.consumed(rows) == {share.source: share.count for share in shares}
        for row in rows.tolist():
            number, own = index.source_of(row)
            seen[index.names[number]][own] += 1
        if block:
            first = [index.consumed(batch)["s0"] for batch in rows.reshape(-1, block)]
            assert set(first) == {parts[0]["quota"]}
    for share in shares:
        counts = [seen[share.name][row] for row in range(share.rows)]
        if share.fixed:  # the same rows every time
            assert set(counts) <= {3 * (share.count // share.rows), 3 * -(-share.count // share.rows)}
        else:  # each row as often as any other, or once more
            assert max(counts) - min(counts) <= 1


@quick
@given(st.sampled_from(SIZES), st.integers(6, 20), st.sampled_from([None, 3, 8]), st.integers(0, 99), st.integers(1, 5))
def test_packs_of_an_epoch_hold_every_kept_sample_once_and_ranks_get_equally_many(
    pool, sizes, capacity, window, seed, ranks
):
    packing = Packing.read({"capacity": capacity, "over_long": "drop", "lengths": VARIED, "window": window})
    index = MixedIndex.open(read_mixture({"sources": {"a": pool(sizes)}, "parts": ["a"]}), packing)
    ledger = index.ledger("all", seed, True, 1)
    kept = np.flatnonzero(index.plan.kept).tolist()
    for epoch in (0, 1):
        packs = [
            ledger.rows_at(position) for position in range(ledger.epoch_start(epoch), ledger.epoch_start(epoch + 1))
        ]
        assert {number for number, _ in packs} == {epoch}
        assert sorted(row for _, rows in packs for row in rows) == kept
        assert all(index.plan.total[rows].sum() <= capacity for _, rows in packs)
    base = LoaderSettings("", "all", 2 * ranks, seed, passes=2, ranks=ranks)
    batches = [list(played(index, replace(base, rank=rank), None)) for rank in range(ranks)]
    assert len({len(of_rank) for of_rank in batches}) == 1
    assert sum(len(batch["pack_starts"]) - 1 for of_rank in batches for batch in of_rank) == ledger.epoch_start(2)


def test_policies_for_over_long_samples_set_limits_and_never_cut_an_image():
    lengths = np.array([[5, 3], [5, 9], [12, 3], [3, 12], [11, 0]])
    down, none = planned(lengths, 10, ("downscale-images", "drop"))
    assert none is None
    assert down.visual.tolist() == [3, 5, 3, 7, 0]
    assert down.kept.tolist() == [True, True, False, True, False]
    cut, _ = planned(lengths, 10, ("truncate-text", "drop"))
    assert cut.text.tolist() == [5, 1, 7, 3, 10]
    assert cut.visual.tolist() == lengths[:, 1].tolist()
    assert cut.kept.tolist() == [True, True, True, False, True]
    assert planned(lengths, 10, ("error",))[1] == 1
    rows, starts = np.array([0, 1, 3]), np.array([0, 2, 5])
    assert over_long.table(down, rows, starts, ["a", "b"], 10) == (
        "a: downscale-images: 1 of 2 samples, longer than 10 tokens, the longest 14\n"
        "b: downscale-images: 1 of 1 samples, longer than 10 tokens, the longest 15\n"
    )


def test_mistakes_are_named(pool, tmp_path):
    with pytest.raises(InputError, match=r"sources.a: there is no folder .*nothere"):
        MixedIndex.open(read_mixture({"sources": {"a": str(tmp_path / "nothere")}, "parts": ["a"]}))
    one = read_mixture({"sources": {"a": pool([4])}, "parts": [{"source": "a", "quota": 3}]})
    with pytest.raises(InputError, match="quotas add up to 3, which does not divide global_batch 4"):
        ledger_of(LoaderSettings("", "all", 4), MixedIndex.open(one))
    strict = Packing.read({"capacity": 4, "over_long": "error", "lengths": VARIED})
    with pytest.raises(InputError, match="source a, key row-0002: 3 text and 2 visual tokens are more"):
        MixedIndex.open(read_mixture({"sources": {"a": pool([4])}, "parts": ["a"]}), strict).ledger("all", 0, True, 1)
    dropping = Packing.read({"capacity": 1, "over_long": "drop", "lengths": f"{__name__}:long"})
    with pytest.raises(InputError, match="every sample of source 'a' is longer than"):
        MixedIndex.open(read_mixture({"sources": {"a": pool([4])}, "parts": ["a"]}), dropping).ledger("all", 0, True, 1)
    with pytest.raises(InputError, match=r"packing.over_long is missing"):
        Packing.read({"capacity": 4, "lengths": VARIED})
    with pytest.raises(InputError, match="Did you mean 'drop'"):
        Packing.read({"capacity": 4, "lengths": VARIED, "over_long": "dropp"})


def test_broken_samples_leave_their_packs_shorter_and_every_pack_in_place(exact_shards, spoil, tmp_path):
    folder = exact_shards(tmp_path / "broken", [6])
    packing = Packing.read({"capacity": 10, "over_long": "drop", "lengths": VARIED, "window": None})
    index = MixedIndex.open(read_mixture({"sources": {"a": str(folder)}, "parts": ["a"]}), packing)
    ledger = index.ledger("all", 3, True, 1)
    packs = [ledger.rows_at(position)[1] for position in range(len(ledger))]
    shorter = next(pack for pack in packs if len(pack) > 1)
    emptied = next(pack for pack in packs if pack is not shorter)
    broken = {shorter[0], *emptied}
    spoil(folder, sorted(broken))
    base = LoaderSettings("", "all", len(packs), 3, budget=tolerant)
    (whole,) = played(index, base, 1)
    sizes = [len(set(pack) - broken) for pack in packs]
    assert whole["pack_starts"].diff().tolist() == sizes
    sound = [row for pack in packs for row in pack if row not in broken]
    assert [one.partition("@")[0] for one in whole["sample_ids"]] == [f"a/row-{row:04d}" for row in sound]
    assert whole["lengths"].tolist() == index.plan.total[sound].tolist()
    ranks = [next(iter(played(index, replace(base, ranks=len(packs), rank=rank), 1))) for rank in range(len(packs))]
    assert [len(part["sample_ids"]) for part in ranks] == sizes
    assert {part["pack_starts"].shape for part in ranks} == {torch.Size([2])}
    assert len({tuple(part) for part in ranks}) == 1

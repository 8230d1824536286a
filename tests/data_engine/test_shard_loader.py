from __future__ import annotations

import itertools
import os
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_engine.image_shards import BuildSettings, build_image_shards
from data_engine.index import ShardIndex
from data_engine.loader import LoaderSettings, collate, make_loader
from mmzoo.errors import InputError

GLOBAL = 60  # divides by 1 to 5 ranks


def crop(sample, random):
    """An augmentation: its bytes show whether the randomness travels with the position."""
    image = sample.fields["image"]
    top, left = random.integers(0, 5, 2)
    pixels = image[top : top + 8, left : left + 8].astype(np.float32) + random.normal()
    return {
        "pixels": pixels.transpose(2, 0, 1),
        "draw": float(random.random()),
        "label": int(top),
        "path": sample.meta["path"],
    }


def batches(settings, steps=None, **changes):
    return list(make_loader(replace(settings, **changes), crop, steps))


def assert_equal(first, second):
    assert len(first) == len(second)
    for one, two in zip(first, second, strict=True):
        assert one.keys() == two.keys()
        for key in one:
            if isinstance(one[key], torch.Tensor):
                assert one[key].dtype == two[key].dtype
                assert torch.equal(one[key], two[key]), key
            else:
                assert one[key] == two[key], key


def joined(parts):
    """The global batch from those of the ranks, in rank order."""
    whole = {}
    for key, value in parts[0].items():
        values = [part[key] for part in parts]
        whole[key] = torch.cat(values) if isinstance(value, torch.Tensor) else list(itertools.chain(*values))
    return whole


@pytest.fixture
def folder(shard_folder):
    return shard_folder(14)


@pytest.fixture
def base(folder):
    return LoaderSettings(folder, split="all", global_batch=GLOBAL, seed=5)


def test_batch_contents(base, folder):
    [batch] = batches(base, 1, global_batch=4)
    assert batch["pixels"].shape == (4, 3, 8, 8)
    assert batch["pixels"].dtype == torch.float32
    assert batch["draw"].dtype == torch.float64
    assert batch["label"].dtype == batch["positions"].dtype == torch.int64
    assert batch["positions"].tolist() == [0, 1, 2, 3]
    assert len(batch["path"]) == 4
    index = ShardIndex.open(folder)
    for position, name in enumerate(batch["sample_ids"]):
        source, _, rest = name.partition("/")
        key, _, place = rest.partition("@")
        assert (source, place) == ("photos", str(position))
        assert index.find(key) is not None


def test_every_row_once_an_epoch(base):
    seen = [path for batch in batches(base, 14, global_batch=3) for path in batch["path"]]
    for epoch in range(3):
        assert len(set(seen[14 * epoch : 14 * (epoch + 1)])) == 14


@pytest.mark.parametrize("ranks", [2, 3, 4, 5])
def test_batch_bytes_are_equal_for_any_ranks(base, ranks):
    alone = batches(base, 3)
    parts = [batches(base, 3, ranks=ranks, rank=rank) for rank in range(ranks)]
    assert_equal([joined(step) for step in zip(*parts, strict=True)], alone)


def test_batch_bytes_are_equal_for_any_workers(base):
    settings = {"global_batch": 6, "cache_mb": 1}
    alone = batches(base, 5, **settings)
    for workers in (1, 2):
        assert_equal(batches(base, 5, workers=workers, **settings), alone)


def test_starting_later_continues_the_same_stream(base):
    whole = batches(base, 6, global_batch=5)
    assert_equal(batches(base, 4, global_batch=5, start_position=10), whole[2:])


def test_reading_again_gives_the_same(base):
    loader = make_loader(base, crop, 2)
    assert_equal(list(loader), list(loader))


def test_passes_end_with_a_short_batch(base):
    settings = {"global_batch": 6, "shuffle": False, "passes": 2}
    loader = make_loader(LoaderSettings(base.index, "all", **settings), crop)
    found = list(loader)
    assert len(loader) == len(found) == 5
    assert [len(batch["path"]) for batch in found] == [6, 6, 6, 6, 4]
    paths = [path for batch in found for path in batch["path"]]
    assert paths[:14] == paths[14:]
    draws = torch.cat([batch["draw"] for batch in found])
    assert len(set(draws.tolist())) == 28


@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_a_short_batch_reaches_all_ranks(base, ranks):
    settings = {"global_batch": 12, "passes": 1, "shuffle": False, "seed": 1}
    alone = batches(base, **settings)
    parts = [batches(base, ranks=ranks, rank=rank, **settings) for rank in range(ranks)]
    assert {len(part) for part in parts} == {2}
    assert_equal([joined(step) for step in zip(*parts, strict=True)], alone)
    assert {len(part[-1]["path"]) for part in parts} <= {0, 1}
    empty = parts[0][-1]
    assert empty["pixels"].shape[1:] == (3, 8, 8)
    assert empty["pixels"].dtype == torch.float32


def test_an_endless_loader_has_no_length(base):
    loader = make_loader(base, crop)
    with pytest.raises(TypeError):
        len(loader)
    assert len(list(itertools.islice(loader, 3))) == 3


def test_the_global_generator_is_left_alone(base):
    torch.manual_seed(0)
    expected = torch.random.get_rng_state()
    batches(base, 1)
    assert torch.equal(torch.random.get_rng_state(), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_sample_is_one_clear_line(base, folder, workers):
    index = ShardIndex.open(folder)
    path, offset, size = index.place(3, "image")
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = bytes(size)
    path.write_bytes(data)
    os.utime(path, (1e9, 1e9))  # bit rot: with a newer date the index would refuse to open
    with pytest.raises(InputError) as caught:
        batches(base, passes=1, workers=workers)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"source photos, shard {path.name}, key {index.key(3)}, offset {offset}: not an image")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_faulty_transform_keeps_its_trace(base, workers):
    with pytest.raises(ZeroDivisionError) as caught:
        list(make_loader(LoaderSettings(base.index, "all", workers=workers), lambda sample, random: {"x": 1 / 0}, 1))
    text = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert "in the transform of source photos" in text


def test_a_transform_may_refuse_a_sample(base):
    def refuse(sample, random):
        raise InputError("8 x 8 px is too small")

    with pytest.raises(InputError, match=r"source photos, shard .*, key .*, offset \d+: 8 x 8 px is too small"):
        list(make_loader(base, refuse, 1))


def test_reserved_and_odd_values():
    with pytest.raises(ValueError, match="'x' in several shapes"):
        collate([{"x": np.zeros(2), "sample_ids": "a"}, {"x": np.zeros(3), "sample_ids": "b"}])
    with pytest.raises(ValueError, match="'y' is not in both a and b"):
        collate([{"x": 1, "y": 2, "sample_ids": "a"}, {"x": 1, "sample_ids": "b"}])
    frozen = np.arange(3)
    frozen.flags.writeable = False
    batch = collate([{"x": frozen[::-1], "ok": True}, {"x": frozen, "ok": False}])
    assert batch["x"].tolist() == [[2, 1, 0], [0, 1, 2]]
    assert batch["ok"].dtype == torch.bool


whole, fractions = st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)


@given(st.lists(whole, min_size=1) | st.lists(fractions, min_size=1) | st.lists(st.booleans() | whole, min_size=1))
def test_numbers_become_what_stacking_them_makes(values):
    stacked = torch.from_numpy(np.stack(values))
    batch = collate([{"x": value} for value in values])["x"]
    assert batch.dtype == stacked.dtype
    assert torch.equal(batch, stacked)


def test_numbers_of_more_than_64_bits_are_treated_as_before():
    huge = [2**63, 1]
    assert collate([{"x": value} for value in huge])["x"].dtype == torch.from_numpy(np.stack(huge)).dtype
    with pytest.raises(TypeError):
        collate([{"x": 2**70}])


def test_a_batch_that_its_taker_dropped_is_gone_while_the_next_is_made(base):
    alive = []

    def watched(sample, random):
        alive.append(before() if before else None)
        return crop(sample, random)

    before = None
    batches = iter(make_loader(base, watched, 2))
    before = weakref.ref(next(batches)["pixels"])
    alive.clear()
    next(batches)
    assert alive
    assert all(batch is None for batch in alive)


def test_the_transform_must_not_fill_reserved_keys(base):
    with pytest.raises(ValueError, match="'positions'"):
        list(make_loader(base, lambda sample, random: {"positions": 1}, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranks": 7}, "does not divide by 7 ranks. Try 63"),
        ({"global_batch": 0}, "global_batch must be at least 1"),
        ({"rank": 1}, "rank 1 is not one of 0 to 0"),
        ({"passes": 0}, "passes must be at least 1"),
        ({"start_position": -1}, "start_position must not be negative"),
        ({"split": "test"}, "no split 'test'"),
    ],
)
def test_wrong_settings(base, changes, message):
    with pytest.raises(InputError, match=message):
        batches(base, **changes)


def test_steps_and_passes_exclude_each_other(base):
    with pytest.raises(InputError, match="Give one"):
        batches(base, 3, passes=1)


def test_an_empty_split(image_folder, tmp_path):
    build_image_shards(BuildSettings(image_folder(3), tmp_path / "out", val_fraction=0))
    with pytest.raises(InputError, match="split is empty"):
        make_loader(LoaderSettings(tmp_path / "out", "val"), crop)

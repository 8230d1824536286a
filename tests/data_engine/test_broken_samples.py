"""Broken samples in the loader: what is left out, what is written down, and what ends the run instead."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_engine.index import ShardIndex
from data_engine.loader import LoaderSettings, make_loader
from data_engine.quarantine import ErrorBudget
from mmzoo.errors import InputError


def pixels(sample, random):
    return {"image": sample.fields["image"], "noise": float(random.random())}


@pytest.fixture
def base(exact_shards, tmp_path):
    folder = exact_shards(tmp_path / "shards", [4, 4, 4])
    file = tmp_path / "run" / "quarantine.jsonl"
    return LoaderSettings(folder, "all", 4, shuffle=False, passes=1, budget=ErrorBudget(max_broken=12), quarantine=file)


def batches(settings, transform=pixels):
    return list(make_loader(settings, transform))


def rows(settings):
    return [json.loads(line) for line in settings.quarantine.read_text().splitlines()]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_sample_makes_a_short_batch_and_one_row(base, spoil, workers):
    spoil(base.index, [5])
    index = ShardIndex.open(base.index)
    found = batches(replace(base, passes=2, workers=workers))
    assert [batch["positions"].tolist() for batch in found[:3]] == [[0, 1, 2, 3], [4, 6, 7], [8, 9, 10, 11]]
    assert [len(batch["image"]) for batch in found] == [4, 3, 4, 4, 3, 4]
    assert found[1]["sample_ids"] == ["made/row-0004@4", "made/row-0006@6", "made/row-0007@7"]
    [row] = rows(base)
    assert row.pop("reason").startswith("not an image of a known format")
    assert row == {
        **{"source": "made", "shard": "shard-000001.tar", "key": "row-0005", "offset": index.place(5, "image")[1]},
        **{"split": "all", "epoch": 0, "position": 5},
    }


@pytest.mark.parametrize("field", ["image", "json"])
def test_either_member_can_break_a_sample(base, spoil, field):
    spoil(base.index, [0], field)
    [row] = rows(base) if batches(base) else []
    assert row["offset"] == ShardIndex.open(base.index).place(0, field)[1]


def test_every_rank_keeps_its_number_of_batches(base, spoil):
    """Rank 1 of the first step has nothing left; the shapes of its empty share come from further on."""
    spoil(base.index, [0, 2, 3, 4, 5])
    parts = [batches(replace(base, ranks=2, rank=rank)) for rank in range(2)]
    assert [[part["positions"].tolist() for part in rank] for rank in parts] == [
        [[1], [], [8, 9]],
        [[], [6, 7], [10, 11]],
    ]
    empty, full = parts[1][0], parts[0][2]
    assert empty["image"].shape == (0, 4, 4, 3)
    assert {key: getattr(value, "dtype", list) for key, value in empty.items()} == {
        key: getattr(value, "dtype", list) for key, value in full.items()
    }
    assert sorted(row["position"] for row in rows(base)) == [0, 2, 3, 4, 5]


def test_a_lender_of_shapes_is_not_quarantined_twice_nor_read_for_ever(base, spoil, monkeypatch):
    spoil(base.index, range(12))
    with pytest.raises(
        InputError, match=r"no sound sample among the 12 rows from source made, shard shard-000000\.tar"
    ):
        batches(base)
    monkeypatch.setattr("data_engine.loader.SHAPE_TRIES", 3)
    with pytest.raises(InputError, match="no sound sample among the 3 rows"):
        batches(base)
    assert len(rows(base)) == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_a_spent_budget_names_sample_file_and_limit(base, spoil, workers):
    spoil(base.index, [1, 5, 9])
    with pytest.raises(InputError) as caught:
        batches(replace(base, budget=ErrorBudget(max_broken=2), workers=workers))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("source made, shard shard-000002.tar, key row-0009, offset ")
    assert f"3 of 12 samples are broken, listed in {base.quarantine}; max_broken is 2." in message
    assert len(rows(base)) == 3


def test_without_a_budget_the_first_one_ends_the_run(base, spoil):
    spoil(base.index, [5])
    with pytest.raises(InputError, match="none is tolerated"):
        batches(replace(base, budget=ErrorBudget()))


def test_a_transform_refuses_samples_within_the_budget(base):
    def refuse_odd(sample, random):
        if int(sample.key[-1]) % 2:
            raise InputError("4 x 4 px is too small")
        return pixels(sample, random)

    assert [len(batch["image"]) for batch in batches(base, refuse_odd)] == [2, 2, 2]
    assert {row["reason"] for row in rows(base)} == {"4 x 4 px is too small"}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("fault", [TypeError, OSError, MemoryError, NameError, RecursionError])
def test_programming_errors_keep_their_trace_whatever_the_budget(base, workers, fault):
    def faulty(sample, random):
        raise fault("ours")

    with pytest.raises(fault) as caught:
        batches(replace(base, workers=workers), faulty)
    text = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert "in the transform of source made" in text
    assert not base.quarantine.exists()


def test_a_programming_error_in_decoding_is_no_broken_sample(base, monkeypatch):
    monkeypatch.setattr("data_engine.decode._rgb", lambda image, rules, counts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        batches(base)
    monkeypatch.setattr("data_engine.decode._rgb", lambda image, rules, counts: len(5))
    with pytest.raises(TypeError):
        batches(base)
    assert not base.quarantine.exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_cut_ends_the_run_with_one_line(base, workers):
    whole = base.index / "shard-000002.tar"
    loader = make_loader(replace(base, workers=workers, passes=None), pixels)  # opened while all is well
    os.truncate(whole, 1000)
    with pytest.raises(InputError, match=r"shard-000002\.tar, key .*, offset \d+: .*the shard is cut") as caught:
        list(loader)
    assert "\n" not in str(caught.value)
    assert not base.quarantine.exists()


def test_a_vanished_shard_ends_the_run_with_one_line(base):
    loader = make_loader(base, pixels)
    shutil.rmtree(base.index)
    with pytest.raises(InputError, match=r"shard-000000\.tar, key \?, offset 512: No such file"):
        list(loader)
    assert not base.quarantine.exists()


def test_deeply_nested_json_is_the_samples_fault(base):
    index = ShardIndex.open(base.index)
    path, offset, size = index.place(3, "json")
    with path.open("r+b") as tar:
        tar.seek(offset)
        tar.write(b"[" * size)
    os.utime(path, (1e9, 1e9))
    assert [len(batch["image"]) for batch in batches(base)] == [3, 4, 4]


def test_a_bad_sector_breaks_its_sample_only(base, monkeypatch):
    index = ShardIndex.open(base.index)
    bad = index.place(6, "image")[1]
    real = os.pread

    def pread(handle, size, offset):
        if Path(f"/proc/self/fd/{handle}").readlink().name == "shard-000001.tar" and offset <= bad < offset + size:
            raise OSError(5, "Input/output error")
        return real(handle, size, offset)

    monkeypatch.setattr("data_engine.reader.os.pread", pread)
    assert [batch["positions"].tolist() for batch in batches(base)] == [[0, 1, 2, 3], [4, 5, 7], [8, 9, 10, 11]]
    assert [row["reason"] for row in rows(base)] == ["Input/output error"]


def test_loss_of_shape_is_a_programming_error(base):
    def ragged(sample, random):
        return {"x": np.zeros(1 + int(sample.key[-1]) % 2)}

    with pytest.raises(ValueError, match="'x' in several shapes"):
        batches(base, ragged)

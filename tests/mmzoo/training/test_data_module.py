import itertools
import shutil

import numpy as np
import pytest
from tiny_training import MeanColour

from data_engine.ledger import Ledger
from mmzoo.errors import InputError
from mmzoo.training.data_module import ShardData, TrainStream


def data(shards, **settings):
    return ShardData(str(shards), MeanColour(), **{"global_batch": 4, **settings})


def ids(stream):
    return [name for batch in stream for name in batch["sample_ids"]]


def test_epochs_cut_one_endless_sequence(shards):
    stream = data(shards).train_dataloader()
    assert len(stream) == 3
    positions = [int(p) for _ in range(3) for batch in stream for p in batch["positions"]]
    assert positions == list(range(36))


def test_an_interrupted_epoch_goes_on_with_the_next_batch(shards):
    stream = data(shards).train_dataloader()
    next(iter(stream))
    assert next(iter(stream))["positions"].tolist() == [4, 5, 6, 7]


def test_a_restored_position_gives_the_rest_of_the_sequence(shards):
    whole = ids(itertools.islice(data(shards, steps_per_epoch=10).train_dataloader(), 8))
    first = data(shards)
    first.position = 12
    second = data(shards, global_batch=2, steps_per_epoch=10)
    with pytest.raises(InputError, match="consent with --allow_changes global_batch"):
        second.load_data_state(first.data_state())
    second.load_data_state(first.data_state(), ["global_batch"])
    assert ids(itertools.islice(second.train_dataloader(), 10)) == whole[12:32]


def test_validation_is_the_same_every_time_and_may_look_twice(shards):
    once, twice = (data(shards, val_passes=passes).val_dataloader() for passes in (1, 2))
    assert ids(once) == ids(once)
    assert len(ids(once)) == 7
    assert len(ids(twice)) == 14


def test_another_order_is_refused(shards):
    state = data(shards).data_state()
    for change, words in (
        ({"seed": 1}, "another order"),
        ({"identity": "x"}, "not those of"),
        ({"schema": 9}, "schema 9"),
        ({"ledger": "x"}, "in another order than this mmzoo gives them"),
    ):
        with pytest.raises(InputError, match=words):
            data(shards).load_data_state({**state, **change})


def test_the_ledger_hash_knows_all_that_decides_the_order(monkeypatch):
    rows = np.arange(5)
    ledgers = [Ledger(rows, 1), Ledger(rows, 2), Ledger(rows[:4], 1), Ledger(rows[::-1], 1), Ledger(rows, 1, False)]
    hashes = [ledger.identity("train") for ledger in ledgers] + [ledgers[0].identity("val")]
    monkeypatch.setattr("data_engine.ledger.ALGORITHM", 2)
    hashes.append(ledgers[0].identity("train"))
    assert len(set(hashes)) == 7
    monkeypatch.undo()
    assert Ledger(rows.copy(), 1).identity("train") == hashes[0]


def test_a_state_can_be_saved_after_a_shard_vanished(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "copy")
    module = data(tmp_path / "copy")
    module.train_dataloader()
    shutil.rmtree(tmp_path / "copy")
    assert module.data_state() == data(shards).data_state()


@pytest.mark.parametrize("limits", [{"max_broken": -1}, {"max_broken_share": 2.0}])
def test_an_error_budget_without_meaning_is_refused(shards, limits):
    with pytest.raises(InputError, match=next(iter(limits))):
        data(shards, **limits)


@pytest.mark.parametrize("name", ["global_batch", "val_batch", "val_passes", "steps_per_epoch"])
def test_numbers_below_one_are_refused(shards, name):
    with pytest.raises(InputError, match=f"{name} must be at least 1"):
        data(shards, **{name: 0})


def test_a_batch_that_does_not_divide_by_the_ranks_is_refused(shards):
    class ThreeRanks:
        global_rank, world_size = 0, 3

    module = data(shards)
    module.trainer = ThreeRanks()
    with pytest.raises(InputError, match=r"global_batch is 4, which does not divide by 3 ranks. Try 6"):
        module.train_dataloader()


def test_waiting_is_measured(monkeypatch):
    clock = itertools.count(0, 2)
    monkeypatch.setattr("mmzoo.training.data_module.time.perf_counter", lambda: next(clock))
    stream = TrainStream(lambda: [1, 2, 3], 3)
    assert list(stream) == [1, 2, 3]
    assert stream.wait_seconds == 6

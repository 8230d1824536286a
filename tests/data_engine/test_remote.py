"""Shards at a URL are the shards of a folder, whatever the wire does, and no run sees half a file."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_engine.download import Transfer
from data_engine.index import ShardIndex
from data_engine.loader import LoaderSettings, make_loader
from data_engine.look import inspect, lint
from data_engine.reader import ShardReader
from data_engine.remote import RemoteSettings, is_remote, open_index
from mmzoo.errors import InputError
from tests.data_engine.faulty_server import serving

HASTY = Transfer(attempts=3, timeout=0.5, backoff=0.01)


@pytest.fixture
def folder(shard_folder):
    return shard_folder(14)


@pytest.fixture
def server(folder):
    with serving(folder) as files:
        yield files


@pytest.fixture
def remote(tmp_path):
    return RemoteSettings(tmp_path / "cache", transfer=HASTY)


def contents(index):
    reader = ShardReader(index)
    return [reader.members(row) for row in range(index.count)]


def tars(folder):
    return sorted(path.name for path in folder.glob("*/*.tar"))


@pytest.mark.parametrize("protocol", ["http", "file"])
def test_the_same_samples_as_in_the_folder(folder, server, remote, protocol):
    index = open_index(server.url if protocol == "http" else folder.as_uri(), remote)
    local = ShardIndex.open(folder)
    assert index.identity == local.identity
    assert not tars(remote.folder), "opening fetches no shard"
    assert contents(index) == contents(local)
    assert [index.key(row) for row in range(3)] == [local.key(row) for row in range(3)]
    assert tars(remote.folder) == local.shards


def test_a_run_on_remote_shards_is_the_run_on_local_ones(folder, server, remote):
    def crop(sample, random):
        top, left = random.integers(0, 5, 2)
        return {"pixels": sample.fields["image"][top : top + 8, left : left + 8].astype(np.float32)}

    settings = LoaderSettings(folder, global_batch=6, seed=3, remote=remote)
    local = list(make_loader(settings, crop, 6))
    largest = max(shard["bytes"] for shard in ShardIndex.open(folder).content["shards"])
    tight = replace(remote, cache_gb=largest * 3 / 1e9)  # three readers, one shard each
    for workers, kept in ((0, remote), (2, tight)):
        over_the_wire = replace(settings, index=server.url, workers=workers, remote=kept)
        for one, two in zip(local, make_loader(over_the_wire, crop, 6), strict=True):
            assert torch.equal(one["pixels"], two["pixels"])
            assert one["sample_ids"] == two["sample_ids"]


@pytest.mark.parametrize("fault", ["drop", "stall", "truncate", "short", "flip", 500, 503, 429])
def test_a_fault_that_passes_is_not_noticed(folder, server, remote, fault):
    server.faults = {"shard-000000.tar": [fault, fault], "offset.npy": [fault]}
    index = open_index(server.url, remote)
    assert ShardReader(index).members(0) == ShardReader(ShardIndex.open(folder)).members(0)
    assert server.requests["shard-000000.tar"] >= 3
    assert server.requests["offset.npy"] >= 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("drop", "3 attempts, at last: "),
        ("stall", "3 attempts, at last: nothing more arrived"),
        ("truncate", "3 attempts, at last: "),
        ("short", r"3 attempts, at last: \d+ bytes arrived, the index says \d+"),
        ("flip", "3 attempts, at last: the sha256 of what arrived is not that of the index"),
        (500, "3 attempts, at last: the server answers 500"),
        (403, "1 attempt, at last: the server answers 403"),
        (404, "1 attempt, at last: there is no such file"),
    ],
)
def test_a_fault_that_stays_is_one_line(server, remote, fault, reason):
    index = open_index(server.url, remote)
    server.faults = {"shard-000000.tar": [fault] * 9}
    with pytest.raises(InputError, match=reason) as caught:
        ShardReader(index).members(0)
    assert f"{server.url}/shard-000000.tar" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tars(remote.folder) == []
    assert not list(remote.folder.rglob("*.partial")), "nothing half fetched stays"


def test_an_address_without_shards(server, remote, folder):
    with pytest.raises(InputError, match="there is no such file"):
        open_index(f"{server.url}/nowhere", remote)
    (folder / "index" / "index.json").write_text("[]")
    with pytest.raises(InputError, match="is not an index of shards"):
        open_index(server.url, remote)
    with pytest.raises(InputError, match="Known are file, http"):
        open_index("htp://host/set", remote)
    with pytest.raises(InputError, match="has a query"):
        open_index("https://host/set?token=1", remote)
    assert not is_remote("photos/shards")


def test_names_that_lead_out_of_the_cache_are_refused(server, remote, folder):
    file = folder / "index" / "index.json"
    content = json.loads(file.read_text())
    content["shards"][0]["name"] = "../../escape.tar"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="may lead out"):
        open_index(server.url, remote)


def test_least_recently_used_goes_first_and_none_in_use(server, remote, folder):
    sizes = [shard["bytes"] for shard in ShardIndex.open(folder).content["shards"]]
    assert len(sizes) >= 3
    room = max(sizes[0] + sizes[1], sizes[0] + sizes[2])
    index = open_index(server.url, replace(remote, cache_gb=room / 1e9))
    held = index.open_shard(0)
    os.close(index.open_shard(1))
    os.close(index.open_shard(2))  # shard 0 is the oldest, and being read: 1 goes
    assert tars(remote.folder) == [index.shards[0], index.shards[2]]
    assert sum(path.stat().st_size for path in remote.folder.glob("*/*.tar")) <= room
    other = index.open_shard(2)
    with pytest.raises(InputError, match=r"no room in the shard cache .* Raise data\.init_args\.cache_gb"):
        index.open_shard(1)
    os.close(held)
    os.close(index.open_shard(1))
    assert tars(remote.folder) == [index.shards[1], index.shards[2]]
    os.close(other)


def test_a_cut_shard_and_the_rest_of_a_killed_fetch_are_mended(server, remote, folder):
    index = open_index(server.url, remote)
    os.close(index.open_shard(0))
    index.paths[0].write_bytes(b"cut")
    (index.folder / ".shard-000001.tar.999999999.partial").touch()
    small = open_index(server.url, replace(remote, cache_gb=0.0001))
    assert ShardReader(small).members(0) == ShardReader(ShardIndex.open(folder)).members(0)
    assert not list(index.folder.glob(".*.partial"))


def _read_all(pickled: bytes) -> None:
    index = pickle.loads(pickled)
    for shard in range(len(index.shards)):
        os.close(index.open_shard(shard))


def test_processes_share_one_fetch_of_a_shard(server, remote):
    index = open_index(server.url, remote)
    server.faults = {"shard-000000.tar": ["stall"]}
    index = open_index(server.url, replace(remote, transfer=replace(HASTY, timeout=20)))
    processes = [
        multiprocessing.get_context("fork").Process(target=_read_all, args=(pickle.dumps(index),)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert {server.requests[name] for name in index.shards} == {1}


def test_inspect_reads_a_url(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert inspect([server.url, "--json"], "inspect") == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 14


def test_inspect_names_the_url_and_lint_refuses_it(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert inspect([server.url, "--json"], "inspect") == 0
    described = json.loads(capsys.readouterr().out)
    assert described["folder"] == server.url
    assert Path(described["cached_in"]).is_relative_to(tmp_path / "home")
    with pytest.raises(InputError, match=f"{server.url} is a URL. Copy"):
        lint([server.url], "lint")


def test_the_data_module_takes_a_url(server, remote, folder):
    from mmzoo.training.data_module import ShardData

    data = ShardData(server.url, len, global_batch=2, cache_dir=str(remote.folder), cache_gb=1)
    assert data.identity() == ShardIndex.open(folder).identity
    assert data.loader_settings("train").index == server.url
    assert data.loader_settings("train").remote.folder == remote.folder

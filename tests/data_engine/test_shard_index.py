from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from data_engine.index import ShardIndex
from mmzoo.errors import InputError


@pytest.fixture
def folder(shard_folder):
    return shard_folder(10)


def edit(folder, **changes):
    file = folder / "index" / "index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_copies_open_whatever_their_dates(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for tar in copy.glob("*.tar"):
        os.utime(tar, (2e9, 2e9))
    assert ShardIndex.open(copy).identity == ShardIndex.open(folder).identity
    assert ShardIndex.open(str(copy)).count == 10


def test_another_size_is_refused(folder):
    with (folder / "shard-000000.tar").open("ab") as tar:
        tar.write(bytes(512))
    with pytest.raises(InputError, match=r"does not fit its shards: shard-000000.tar has \d+ bytes"):
        ShardIndex.open(folder)


def test_a_newer_tar_with_other_content_is_refused(folder):
    tar = folder / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    os.utime(tar, (2e9, 2e9))
    with pytest.raises(InputError, match="the index is older than the tar"):
        ShardIndex.open(folder)


def test_a_missing_tar_is_refused(folder):
    (folder / "shard-000001.tar").unlink()
    with pytest.raises(InputError, match=r"shard-000001\.tar is missing"):
        ShardIndex.open(folder)


def test_no_index_or_another_one(folder, tmp_path):
    with pytest.raises(InputError, match="no shard folder"):
        ShardIndex.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"has no index/index\.json"):
        ShardIndex.open(tmp_path)
    edit(folder, schema_version=99)
    with pytest.raises(InputError, match="schema version 99"):
        ShardIndex.open(folder)
    edit(folder, schema_version=1, shards=None)
    with pytest.raises(InputError, match="incomplete"):
        ShardIndex.open(folder)
    for text in ("[]", "{", "\xff"):
        (folder / "index" / "index.json").write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match="is not an index"):
            ShardIndex.open(folder)


UNFINISHED = b"\x93NUMPY\x01\x00\x46\x00{'descr': '<i4', " + bytes(120)


@pytest.mark.parametrize("damage", [b"", b"\x80\x04pickle", UNFINISHED, None])
def test_damaged_columns_are_refused(folder, damage):
    column = folder / "index" / "offset.npy"
    if damage is None:
        shutil.copy(folder / "index" / "split.npy", column)
    else:
        column.write_bytes(damage)
    with pytest.raises(InputError, match=r"offset\.npy"):
        ShardIndex.open(folder)


@pytest.mark.parametrize("number", [-1, 2**30])
def test_numbers_of_tars_that_are_not_there_are_refused(folder, number):
    column = folder / "index" / "shard.npy"
    numbers = np.load(column)
    numbers[0] = number
    np.save(column, numbers)
    with pytest.raises(InputError, match=r"shard\.npy names tars that are not there"):
        ShardIndex.open(folder)


def test_splits(folder):
    index = ShardIndex.open(folder)
    rows = sorted([*index.split_rows("train"), *index.split_rows("val")])
    assert rows == index.split_rows("all").tolist() == list(range(10))
    with pytest.raises(InputError, match=r"no split 'test'.*train, val, all"):
        index.split_rows("test")

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest

from data_engine.decode import decode_image
from data_engine.index import ShardIndex
from data_engine.reader import ImageCache, ShardReader
from mmzoo.errors import InputError


@pytest.fixture
def index(shard_folder):
    return ShardIndex.open(shard_folder(10))


def test_samples(index):
    reader = ShardReader(index)
    for row in range(index.count):
        sample = reader.sample(row)
        assert (sample.key, sample.source) == (index.key(row), "photos")
        np.testing.assert_array_equal(sample.fields["image"], decode_image(reader.raw(row, "image")))
        assert sample.meta["sha256"] == reader.meta(row)["sha256"]


@pytest.mark.parametrize("size", [1, 600, 2000, 2**19])
def test_a_scan_gives_the_bytes_of_single_reads_in_any_order(index, monkeypatch, size):
    monkeypatch.setattr("data_engine.reader.SCAN_BYTES", size)
    reader = ShardReader(index)
    for rows in (range(10), [], [9, 0, 0, 3, 4, 5, 2], np.array([1, 2, 3])):
        for field in ("image", "json"):
            assert list(reader.scan(rows, field)) == [reader.raw(int(row), field) for row in rows]


def test_a_scan_of_neighbours_reads_each_shard_once(index, monkeypatch):
    reads = []
    real = ShardReader._read_into
    monkeypatch.setattr(ShardReader, "_read_into", lambda *given: reads.append(given) or real(*given))
    monkeypatch.setattr(ShardReader, "_read", None)
    assert len(list(ShardReader(index).scan(range(10), "image"))) == 10
    assert len(reads) == len(index.shards)


def test_a_cut_shard_ends_a_scan_with_one_line(index):
    path, offset, size = index.place(4, "image")
    with path.open("r+b") as tar:
        tar.truncate(offset + 5)
    with pytest.raises(InputError, match=rf"offset {offset}: 5 of {size} bytes could be read, the shard is cut"):
        list(ShardReader(index).scan(range(10), "image"))


def test_a_pickled_reader_opens_its_own_files(index):
    reader = ShardReader(index, cache_bytes=1000)
    reader.raw(0, "json")
    again = pickle.loads(pickle.dumps(reader))
    assert not again._handles
    assert again.cache.limit == 1000
    assert again.raw(9, "image") == reader.raw(9, "image")


def test_few_files_stay_open(index, monkeypatch):
    monkeypatch.setattr("data_engine.index.ShardIndex.max_open", 2)
    reader = ShardReader(index)
    assert len(index.shards) > 2
    expected = [ShardReader(index).raw(row, "image") for row in range(10)]
    for _ in range(2):
        assert [reader.raw(row, "image") for row in range(10)] == expected
        assert len(reader._handles) == 2
    reader.close()
    assert reader.raw(0, "image") == expected[0]


def test_the_taker_may_write_to_an_image(index):
    reader = ShardReader(index, cache_bytes=2**20)
    first = reader.sample(0).fields["image"]
    expected = first.copy()
    first[:] = 0
    second = reader.sample(0).fields["image"]
    np.testing.assert_array_equal(second, expected)
    second[:] = 0
    np.testing.assert_array_equal(reader.sample(0).fields["image"], expected)


def test_cache_is_bounded_and_drops_the_least_recently_used():
    cache = ImageCache(250)
    images = {row: np.full((10, 10, 1), row, np.uint8) for row in range(3)}
    cache.put(0, images[0])
    cache.put(1, images[1])
    assert cache.get(0) is not None
    cache.put(2, images[2])
    assert cache.bytes == 200
    assert cache.get(1) is None
    assert cache.get(0)[0, 0, 0] == 0
    cache.put(7, np.zeros((300, 1, 1), np.uint8))
    assert (cache.get(7), cache.bytes) == (None, 200)
    nothing = ImageCache(0)
    nothing.put(0, images[0])
    assert nothing.get(0) is None


def test_cached_images_are_not_decoded_again(index, monkeypatch):
    reader = ShardReader(index, cache_bytes=2**20)
    reader.sample(3)
    monkeypatch.setattr("data_engine.reader.decode_image", None)
    assert reader.sample(3).fields["image"].shape == (12, 16, 3)


def test_errors_name_the_place(index):
    reader = ShardReader(index)
    path, offset, size = index.place(4, "image")
    place = f"source photos, shard {path.name}, key {index.key(4)}, offset {offset}: "
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = bytes(size)
    path.write_bytes(data)
    with pytest.raises(InputError, match=place + "not an image of a known format"):
        reader.sample(4)
    _, json_offset, json_size = index.place(4, "json")
    data[json_offset : json_offset + json_size] = b"\xff" * json_size
    path.write_bytes(data)
    with pytest.raises(InputError, match="not the json of a sample"):
        reader.meta(4)
    path.write_bytes(data[: offset + 5])
    with pytest.raises(InputError, match=place + rf"{512 + 5} of \d+ bytes could be read, the shard is cut"):
        reader.sample(4)
    shutil.rmtree(index.folder)
    with pytest.raises(InputError, match=r"offset.*No such file"):
        ShardReader(index).sample(4)

from __future__ import annotations

import tarfile

import pytest

from data_engine.shards import KEY_PATTERN, ShardWriter, sample_key, shard_name

SAMPLES = [(f"k{number:03d}", {"jpg": bytes([number]) * (400 + number), "json": b'{"n": 1}'}) for number in range(9)]


def write(folder, samples=SAMPLES, shard_bytes=6000):
    folder.mkdir(exist_ok=True)
    with ShardWriter(folder, shard_bytes) as writer:
        places = [writer.add(key, members) for key, members in samples]
    return writer.shards, places


def test_python_reads_the_tars(tmp_path):
    shards, places = write(tmp_path)
    assert [shard.name for shard in shards] == [shard_name(n) for n in range(len(shards))] != [shard_name(0)]
    found = []
    for shard in shards:
        assert (tmp_path / shard.name).stat().st_size == shard.bytes <= 6000
        with tarfile.open(tmp_path / shard.name) as archive:
            infos = archive.getmembers()
            assert {(info.mtime, info.uid, info.gid, info.uname) for info in infos} == {(0, 0, 0, "")}
            found += [(info.name, archive.extractfile(info).read()) for info in infos]
        assert len(infos) == 2 * shard.samples
    assert found == [(f"{key}.{ext}", data) for key, members in SAMPLES for ext, data in members.items()]
    assert sum(shard.samples for shard in shards) == len(places) == 9


def test_places_point_at_the_bytes(tmp_path):
    shards, places = write(tmp_path)
    for (_, members), spots in zip(SAMPLES, places, strict=True):
        for data, spot in zip(members.values(), spots, strict=True):
            content = (tmp_path / shards[spot.shard].name).read_bytes()
            assert content[spot.offset : spot.offset + spot.size] == data


def test_webdataset_reads_them_raw(tmp_path):
    import webdataset

    shards, _ = write(tmp_path)
    urls = [str(tmp_path / shard.name) for shard in shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [(sample["__key__"], {"jpg": sample["jpg"], "json": sample["json"]}) for sample in samples] == SAMPLES


def test_bytes_depend_on_the_samples_only(tmp_path):
    first, _ = write(tmp_path / "a")
    second, _ = write(tmp_path / "b")
    assert first == second


def test_one_sample_larger_than_a_shard_gets_its_own(tmp_path):
    shards, _ = write(tmp_path, [("a", {"jpg": b"x" * 9000}), ("b", {"jpg": b"y"})])
    assert [shard.samples for shard in shards] == [1, 1]


@pytest.mark.parametrize("key", ["tile_12.5m", "Upper", "", "a/b", "é", "x" * 81])
def test_malformed_keys_are_refused(tmp_path, key):
    with ShardWriter(tmp_path, 10**6) as writer, pytest.raises(ValueError, match="key"):
        writer.add(key, {"jpg": b"x"})


@pytest.mark.parametrize("second", ["b", "a"])
def test_keys_come_sorted_and_once(tmp_path, second):
    with ShardWriter(tmp_path, 10**6) as writer:
        writer.add("b", {"jpg": b"x"})
        with pytest.raises(ValueError, match="sorted"):
            writer.add(second, {"jpg": b"x"})


def test_empty_members_are_refused(tmp_path):
    with ShardWriter(tmp_path, 10**6) as writer, pytest.raises(ValueError, match="empty"):
        writer.add("a", {"jpg": b""})


def test_keys_of_paths():
    paths = [
        "tile_12.5m_001.tif",
        "tile_12.5m_002.tif",
        "A/b.jpg",
        "A_b.jpg",
        "a/b.jpg",
        "ünï/ß.png",
        ".png",
        "x" * 300 + ".jpg",
    ]
    keys = [sample_key(path) for path in paths]
    assert len(set(keys)) == len(paths)
    assert all(KEY_PATTERN.fullmatch(key) and len(key) <= 80 for key in keys)
    assert keys[0].startswith("tile_12_5m_001-")


def test_shards_reach_the_disk_in_large_pieces(tmp_path, monkeypatch):
    """Small ones would lie in the page cache page by page, where reading takes three times as long."""
    sizes = []
    monkeypatch.setattr("data_engine.shards.WRITE_BYTES", 40_000)
    with ShardWriter(tmp_path, 10**9) as writer:
        for number in range(100):
            writer.add(f"key-{number:03}", {"bin": bytes([number]) * 3000})
            sizes.append((tmp_path / shard_name(0)).stat().st_size)
    assert len(set(sizes)) <= writer.shards[0].bytes // 36_000 + 1
    assert (tmp_path / shard_name(0)).stat().st_size == writer.shards[0].bytes

"""Shards written anew hold the same bytes in other tars, and lint finds nothing."""

from __future__ import annotations

import errno
import json

import pytest

from data_engine.image_shards import BuildSettings, build_image_shards
from data_engine.index import ShardIndex
from data_engine.lint import lint_folder
from data_engine.output_folder import replaced_folder
from data_engine.reader import ShardReader
from data_engine.removals import ListedRemoval
from data_engine.reshard import main, reshard
from mmzoo.errors import InputError


def held(folder):
    index = ShardIndex.open(folder)
    reader = ShardReader(index)
    splits = {name: set(index.split_rows(name).tolist()) for name in index.splits}
    return {
        key: (members, next(name for name, rows in splits.items() if row in rows))
        for row in range(index.count)
        for key, members in [reader.members(row)]
    }


@pytest.fixture
def folder(shard_folder):
    return shard_folder(10)


def test_the_same_samples_in_other_tars(folder, tmp_path):
    index = ShardIndex.open(folder)
    assert reshard([index], tmp_path / "one", 10**7) == (10, 1)
    assert held(tmp_path / "one") == held(folder)
    assert lint_folder(tmp_path / "one") == []
    again = ShardIndex.open(tmp_path / "one")
    assert reshard([again], tmp_path / "back", 8000) == (10, len(index.shards))
    assert [path.read_bytes() for path in ShardIndex.open(tmp_path / "back").paths] == [
        path.read_bytes() for path in index.paths
    ]
    assert again.content["formats"] == index.content["formats"]


def test_a_removal_list_is_left_out(folder, tmp_path, capsys):
    keys = sorted(held(folder))
    removed = tmp_path / "removed.jsonl"
    removed.write_text("".join(json.dumps({"key": key, "why": "x"}) + "\n" for key in keys[:3]))
    assert main([str(folder), "-o", str(tmp_path / "out"), "--without", str(removed)], "reshard") == 0
    assert held(tmp_path / "out") == {key: value for key, value in held(folder).items() if key not in keys[:3]}
    assert lint_folder(tmp_path / "out") == []
    assert "7 samples in 1 shards, 3 left out" in capsys.readouterr().err


def test_merged_shards_hold_both(folder, tmp_path, encoded, pixels):
    other = tmp_path / "more"
    other.mkdir()
    for number in range(3):
        (other / f"new{number}.png").write_bytes(encoded(pixels(90 + number), "PNG"))
    build_image_shards(BuildSettings(other, tmp_path / "more-shards"))
    sources = [ShardIndex.open(tmp_path / "more-shards"), ShardIndex.open(folder)]
    reshard(sources, tmp_path / "both", 10**7)
    assert held(tmp_path / "both") == held(folder) | held(tmp_path / "more-shards")
    assert ShardIndex.open(tmp_path / "both").source == "both"
    assert lint_folder(tmp_path / "both") == []


def test_refusals(folder, tmp_path, encoded, pixels):
    index = ShardIndex.open(folder)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"is in .* and in .* Leave one out"):
        reshard([index, index], out, 10**7)
    with pytest.raises(InputError, match="'nobody' is to be left out, but is in none"):
        reshard([index], out, 10**7, {"nobody": ListedRemoval("x")})
    with pytest.raises(InputError, match="no sample would be left"):
        reshard([index], out, 10**7, dict.fromkeys(held(folder), ListedRemoval("x")))
    odd = tmp_path / "odd.jsonl"
    odd.write_text('{"key": "a"}\n[]\n')
    with pytest.raises(InputError, match="line 2 is not"):
        main([str(folder), "-o", str(out), "--without", str(odd)], "reshard")
    assert not out.exists()


def test_a_picture_in_two_splits_is_a_leak(folder, tmp_path):
    key, (members, split) = next(iter(held(folder).items()))
    other = tmp_path / "copy"
    other.mkdir()
    name = "renamed.png" if members["image"].startswith(b"\x89PNG") else "renamed.jpg"
    (other / name).write_bytes(members["image"])
    build_image_shards(BuildSettings(other, tmp_path / "copied", val_fraction=float(split == "train")))
    with pytest.raises(InputError, match=rf"leak: renamed-\w+ and {key} "):
        reshard([ShardIndex.open(folder), ShardIndex.open(tmp_path / "copied")], tmp_path / "out", 10**7)
    assert not (tmp_path / "out").exists()


def fill_the_disk(output):
    with replaced_folder(output, overwrite=False) as building:
        (building / "half").write_text("x")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*out: No space left on device"):
        fill_the_disk(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []

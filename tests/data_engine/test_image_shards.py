from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_engine.build import byte_size, main
from data_engine.image_shards import BuildSettings, build_image_shards
from data_engine.index import ShardIndex
from data_engine.reader import ShardReader
from mmzoo.errors import InputError


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if "building" in path.name]


def test_build_then_read_back(tmp_path, image_folder):
    source = image_folder(10)
    summary = build_image_shards(BuildSettings(source, tmp_path / "out", val_fraction=0.3, shard_bytes=4000))
    assert summary.images == 10
    assert summary.shards > 1
    assert summary.formats == {"JPEG": 6, "PNG": 4}
    index = ShardIndex.open(tmp_path / "out")
    assert index.identity == summary.identity
    assert index.count == 10
    assert {split: len(index.split_rows(split)) for split in ("train", "val")} == summary.splits
    reader = ShardReader(index)
    for row in range(index.count):
        meta = reader.meta(row)
        assert reader.raw(row, "image") == (source / meta["path"]).read_bytes()
        assert (meta["source"], meta["width"], meta["height"], meta["mode"]) == ("photos", 16, 12, "RGB")
        assert index.find(index.key(row)) == row
    assert [index.key(row) for row in range(10)] == sorted(index.key(row) for row in range(10))
    assert index.find("nothing") is None
    assert not leftovers(tmp_path)


def test_equal_input_makes_equal_folders(tmp_path, image_folder):
    source = image_folder(6)
    build_image_shards(BuildSettings(source, tmp_path / "a"))
    build_image_shards(BuildSettings(source, tmp_path / "b"))
    first = {
        path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()
    }
    second = {
        path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*") if path.is_file()
    }
    assert first == second


def test_broken_and_other_files(tmp_path, image_folder, bomb, capsys):
    source = image_folder(4)
    (source / "notes.txt").write_text("BM is not always a bitmap")
    (source / "bomb.png").write_bytes(bomb)
    (source / "empty.jpg").touch()
    (source / "page.jpeg").write_text("<html>")
    whole = (source / "Set 1" / "img.001.jpeg").read_bytes()
    (source / "cut.jpg").write_bytes(whole[:-40])
    (source / "model.pkl").write_bytes(b"\x80\x04.")
    assert main(["images", str(source), str(tmp_path / "out")], "build") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "skipped, no images (2):\n  model.pkl\n  notes.txt" in captured.err
    rows = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    reasons = {row["path"]: row["reason"] for row in rows}
    assert list(reasons) == ["bomb.png", "cut.jpg", "empty.jpg", "page.jpeg"]
    assert "too many pixels, not decoded" in reasons["bomb.png"]
    assert "truncated" in reasons["cut.jpg"]
    assert ShardIndex.open(tmp_path / "out").count == 4


def test_json_summary(tmp_path, image_folder, capsys):
    assert main(["images", str(image_folder(3)), str(tmp_path / "out"), "--json"], "build") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["images"] == 3
    assert captured.err == ""


def test_split_file_and_groups(tmp_path, image_folder):
    source = image_folder(4)
    paths = sorted(path.relative_to(source).as_posix() for path in source.rglob("*.*"))
    split_file = tmp_path / "split.json"
    split_file.write_text(json.dumps(dict(zip(paths, ["val", "train", "train", "val"], strict=True))))
    build_image_shards(BuildSettings(source, tmp_path / "out", split_file=split_file))
    index = ShardIndex.open(tmp_path / "out")
    reader = ShardReader(index)
    found = {reader.meta(int(row))["path"] for row in index.split_rows("val")}
    assert found == {paths[0], paths[3]}
    with pytest.raises(InputError, match=r"leak.*same group"):
        build_image_shards(BuildSettings(source, tmp_path / "new", split_file=split_file, group="(Set .)"))
    with pytest.raises(InputError, match="exclude each other"):
        build_image_shards(BuildSettings(source, tmp_path / "new", split_file=split_file, val_fraction=0.5))
    assert not (tmp_path / "new").exists()
    assert not leftovers(tmp_path)


def test_group_keeps_files_together(tmp_path, image_folder):
    build_image_shards(BuildSettings(image_folder(10), tmp_path / "out", val_fraction=0.5, group="^(Set .)/"))
    index = ShardIndex.open(tmp_path / "out")
    reader = ShardReader(index)
    folders = [{reader.meta(int(row))["path"][:5] for row in index.split_rows(split)} for split in ("train", "val")]
    assert len(folders[0]) == len(folders[1]) == 1
    with pytest.raises(InputError, match="matches none of 10 names"):
        build_image_shards(BuildSettings(image_folder(10), tmp_path / "new", group="(nothing)"))


def test_copies_of_a_picture_stay_in_one_split(tmp_path, image_folder):
    source = image_folder(8)
    picture = (source / "Set 1" / "img.001.jpeg").read_bytes()
    for number in range(8):
        (source / f"copy {number}.jpeg").write_bytes(picture)
    summary = build_image_shards(BuildSettings(source, tmp_path / "out", val_fraction=0.5))
    assert len(summary.duplicates) == 8
    assert min(summary.splits.values()) > 0


def test_duplicates_are_reported_inside_a_split_and_refused_across(tmp_path, image_folder):
    source = image_folder(8)
    (source / "copy.jpeg").write_bytes((source / "Set 1" / "img.001.jpeg").read_bytes())
    summary = build_image_shards(BuildSettings(source, tmp_path / "out", val_fraction=0))
    assert [set(pair) for pair in summary.duplicates] == [{"copy.jpeg", "Set 1/img.001.jpeg"}]
    paths = [path.relative_to(source).as_posix() for path in source.rglob("*.*")]
    split_file = tmp_path / "split.json"
    split_file.write_text(json.dumps({path: "val" if path == "copy.jpeg" else "train" for path in paths}))
    with pytest.raises(InputError, match=r"copy\.jpeg.*same content"):
        build_image_shards(BuildSettings(source, tmp_path / "new", split_file=split_file))
    assert not (tmp_path / "new").exists()


def test_wrong_sources(tmp_path, image_folder):
    empty, other = tmp_path / "empty", tmp_path / "other"
    empty.mkdir()
    other.mkdir()
    (other / "a.txt").write_text("x")
    for source, message in (
        (tmp_path / "absent", "no folder"),
        (empty, "is empty"),
        (other, "no image among the 1 files"),
        (other / "a.txt", "is a file"),
    ):
        with pytest.raises(InputError, match=message):
            build_image_shards(BuildSettings(source, tmp_path / "deep" / "out"))
        assert not (tmp_path / "deep").exists()
    (other / "b.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match=r"none of the 1 images .* is sound.*b\.jpg"):
        build_image_shards(BuildSettings(other, tmp_path / "out"))
    assert not leftovers(tmp_path)


def test_wrong_outputs(tmp_path, image_folder):
    source = image_folder(3)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.tex").write_text("x")
    file = tmp_path / "file"
    file.write_text("x")
    for output, overwrite, message in (
        (taken, False, "is not empty"),
        (taken, True, "not a shard folder of ours"),
        (file, True, "is a file"),
        (file / "below", False, "is a file"),
        (source, True, "would hold the images"),
        (tmp_path, True, "would hold the images"),
        (Path("/proc/shards"), False, "cannot write"),
    ):
        with pytest.raises(InputError, match=message):
            build_image_shards(BuildSettings(source, output, overwrite=overwrite))
    assert (taken / "thesis.tex").read_text() == file.read_text() == "x"
    assert len(list(source.rglob("*.*"))) == 3
    assert not leftovers(tmp_path)


def test_overwrite_replaces_our_own_set_only(tmp_path, image_folder):
    source, output = image_folder(3), tmp_path / "out"
    first = build_image_shards(BuildSettings(source, output))
    with pytest.raises(InputError, match="--overwrite"):
        build_image_shards(BuildSettings(source, output))
    (source / "new.png").write_bytes((source / "Set 0" / "img.000.png").read_bytes()[:40])
    second = build_image_shards(BuildSettings(source, output, overwrite=True, val_fraction=0))
    assert second.identity != first.identity
    assert (output / "rejected.jsonl").exists()
    third = build_image_shards(BuildSettings(source, output, overwrite=True))
    assert ShardIndex.open(output).identity == third.identity
    (output / "mine.txt").write_text("x")
    with pytest.raises(InputError, match=r"also holds mine\.txt"):
        build_image_shards(BuildSettings(source, output, overwrite=True))
    assert (output / "mine.txt").exists()
    assert not leftovers(tmp_path)


def test_output_inside_the_source_is_not_read_as_input(tmp_path, image_folder):
    source = image_folder(3)
    for _ in range(2):
        summary = build_image_shards(BuildSettings(source, source / "shards", overwrite=True))
        assert (summary.images, summary.skipped) == (3, [])


def test_nothing_remains_of_an_interrupted_build(tmp_path, image_folder, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("data_engine.image_shards.check_leaks", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_image_shards(BuildSettings(image_folder(3), tmp_path / "out"))
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


def test_full_disk_is_the_users_matter(tmp_path, image_folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("data_engine.shards.ShardWriter._write", full)
    with pytest.raises(InputError, match="No space left"):
        build_image_shards(BuildSettings(image_folder(3), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_links_pipes_and_odd_names(tmp_path, image_folder):
    source = image_folder(3)
    (source / "loop").symlink_to(source)
    (source / "gone.jpg").symlink_to(source / "nowhere")
    os.mkfifo(source / "pipe.jpg")
    bad_name = os.fsencode(source) + b"/caf\xe9.png"
    with open(bad_name, "wb") as file:  # noqa: PTH123
        file.write((source / "Set 0" / "img.000.png").read_bytes())
    summary = build_image_shards(BuildSettings(source, tmp_path / "out"))
    assert summary.images == 3
    assert summary.skipped == ["gone.jpg", "loop", "pipe.jpg"]
    assert [(item["path"], item["reason"]) for item in summary.rejected] == [
        ("caf\\udce9.png", "the file name is not UTF-8")
    ]


def test_sizes():
    assert [byte_size(text) for text in ("256MB", "1GiB", "4096", "1.5 kb")] == [256_000_000, 2**30, 4096, 1500]
    for text in ("", "MB", "12 parsecs", "-3MB"):
        with pytest.raises(InputError, match="not a size"):
            byte_size(text)


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_fraction_is_checked(tmp_path, fraction):
    with pytest.raises(InputError, match="between 0 and 1"):
        build_image_shards(BuildSettings(tmp_path, tmp_path / "out", val_fraction=fraction))


def test_columns_are_memory_mapped_and_pickle_small(shard_folder):
    import pickle

    index = ShardIndex.open(shard_folder(10))
    assert isinstance(index.column("offset").base, np.memmap)
    again = pickle.loads(pickle.dumps(index))
    assert again.key(3) == index.key(3)
    assert isinstance(again.column("offset").base, np.memmap)


def test_commands_do_not_need_torch(tmp_path, image_folder):
    program = (
        "import sys; from data_engine.build import main; from data_engine.look import inspect, lint\n"
        f"main(['images', {str(image_folder(3))!r}, {str(tmp_path / 'out')!r}], 'b')\n"
        f"inspect([{str(tmp_path / 'out')!r}], 'i'); assert lint([{str(tmp_path / 'out')!r}], 'l') == 0\n"
        "assert not {'torch', 'webdataset'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_what_killed_builds_left_is_swept_but_a_running_one_is_left_alone(tmp_path, image_folder):
    source, output = image_folder(6), tmp_path / "shards"
    dead, running, other = (tmp_path / f".shards.building-{name}" for name in ("1", "3", "mine"))
    for folder in (dead, running, other):
        folder.mkdir()
        (folder / "shard-000000.tar").write_bytes(b"half")
    lock = os.open(running, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    build_image_shards(BuildSettings(source, output))
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "shards", running.name, other.name}
    os.close(lock)
    # Killed after the old shards were moved aside: they come back, and an overwriting build replaces them as usual.
    output.rename(tmp_path / ".shards.building-2.old")
    with pytest.raises(InputError, match="exists and is not empty"):
        build_image_shards(BuildSettings(source, output))
    assert (output / "index" / "index.json").is_file()
    build_image_shards(BuildSettings(source, output, overwrite=True))
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "shards", other.name}

"""A build from a config: the same bytes whatever the workers, whole or absent, and nothing done twice."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from data_engine.build_config import parse_config, read_config
from data_engine.build_parts import PART_SAMPLES
from data_engine.build_records import build_records
from data_engine.index import ShardIndex
from data_engine.lint import lint_folder
from data_engine.reader import ShardReader
from data_engine.removals import ListedRemoval
from data_engine.reshard import reshard
from data_engine.stored_sample import StoredFile, StoredSample, Turn
from mmzoo.cli import main
from mmzoo.errors import InputError
from tests.data_engine.conftest import encode, picture
from tests.data_engine.made_sources import ListSource, built, config_of


@pytest.fixture
def captions(tmp_path) -> Path:
    """A folder of 12 captioned pictures; 3 and 7 are the same picture."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        seed = 3 if number == 7 else number
        (folder / f"p{number:02d}.png").write_bytes(encode(picture(seed), "PNG"))
        (folder / f"p{number:02d}.txt").write_text(f"picture {number}")
    return folder


@pytest.fixture
def dialogs(tmp_path) -> Path:
    """More text-only dialogs than one part holds."""
    file = tmp_path / "dialogs.jsonl"
    rows = [{"conversations": [{"from": "human", "value": f"say {n}"}]} for n in range(2 * PART_SAMPLES + 9)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.fixture
def config(tmp_path, captions, dialogs) -> Path:
    file = tmp_path / "mix.yaml"
    sources = [
        {"kind": "llava", "name": "Dialogs", "annotations": str(dialogs), "license": "CC0-1.0"},
        {"kind": "captions", "name": "captions", "images": str(captions)},
    ]
    content = {"output": str(tmp_path / "mix"), "shard_size": "200KB", "val_fraction": 0.2, "sources": sources}
    file.write_text(yaml.safe_dump(content))
    return file


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path, config, capsys):
    assert main(["data", "build", "-c", str(config)]) == 0
    alone = contents(tmp_path / "mix")
    assert len([name for name in alone if name.endswith(".tar")]) > 3
    (tmp_path / "mix").rename(tmp_path / "alone")
    assert main(["data", "build", "-c", str(config), "--workers", "2"]) == 0
    assert contents(tmp_path / "mix") == alone
    assert lint_folder(tmp_path / "mix") == []
    assert [path.name for path in tmp_path.glob(".*")] == []
    assert "captions: 12" in capsys.readouterr().err


def test_a_second_build_does_nothing_until_something_changed(tmp_path, config, captions, capsys):
    main(["data", "build", "-c", str(config)])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "mix").rglob("*")}
    capsys.readouterr()
    assert main(["data", "build", "-c", str(config)]) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "mix").rglob("*")} == before
    (captions / "p00.txt").write_text("another text")
    assert main(["data", "build", "-c", str(config)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["data", "build", "-c", str(config), "--overwrite"]) == 0
    reader = ShardReader(ShardIndex.open(tmp_path / "mix"))
    assert reader.sample(0).fields["text"] == "another text"
    (captions / "p01.png").write_bytes(encode(picture(99), "PNG"))
    assert main(["data", "build", "-c", str(config), "--overwrite"]) == 0
    reader = ShardReader(ShardIndex.open(tmp_path / "mix"))
    assert (reader.sample(1).fields["image"] == picture(99)).all()


def test_a_kill_in_the_last_steps_leaves_nothing_behind(tmp_path, config):
    """Killed when the earlier output was moved aside, or when the new one was there and its parts, too."""
    build_records(read_config(config))
    before = contents(tmp_path / "mix")
    work = tmp_path / ".mix.parts"
    work.mkdir()
    (tmp_path / "mix").rename(work / "result.old")
    with pytest.raises(InputError, match="--overwrite"):
        build_records(read_config(config))
    assert contents(tmp_path / "mix") == before
    work.mkdir()
    (work / "part.tar").write_bytes(b"x")
    assert not build_records(read_config(config)).made
    assert not work.exists()


def test_the_parts_are_removed_before_another_build_may_begin(tmp_path, config, monkeypatch):
    held = []

    def watched(folder, **options):
        if folder.name == ".mix.parts":
            other = os.open(folder, os.O_RDONLY)
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(other)
            held.append(folder)
        rmtree(folder, **options)

    rmtree = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", watched)
    build_records(read_config(config))
    assert held


def test_a_refused_build_leaves_the_folder_of_the_other_alone(tmp_path, config):
    work = tmp_path / ".mix.parts"
    work.mkdir()
    other = os.open(work, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another build"):
        build_records(read_config(config))
    os.close(other)
    assert work.is_dir()


def test_a_picture_in_two_samples_stays_in_one_split(tmp_path, captions):
    config = {"output": str(tmp_path / "out"), "val_fraction": 0.4}
    split: list[int] = []
    for number in range(4):
        source = {"kind": "captions", "name": f"c{number}", "images": str(captions)}
        build_records(parse_config({**config, "output": str(tmp_path / f"out{number}"), "sources": [source]}, "c"))
        split = ShardIndex.open(tmp_path / f"out{number}").column("split").tolist()
        assert split[3] == split[7]
    assert 0 < sum(split) < 12


def test_a_leak_between_fixed_splits_is_refused(tmp_path, captions):
    source = {"kind": "captions", "images": str(captions)}
    sources = [{**source, "name": "a", "split": "train"}, {**source, "name": "b", "split": "val"}]
    with pytest.raises(InputError, match=r"leak: a-000000001 \(train\) and b-000000001 \(val\)"):
        build_records(parse_config({"output": str(tmp_path / "out"), "sources": sources}, "c"))
    assert not (tmp_path / "out").exists()


def test_a_group_stays_in_one_split(tmp_path, captions):
    source = {"kind": "captions", "name": "a", "images": str(captions), "group": r"p(\d)"}
    build_records(parse_config({"output": str(tmp_path / "o"), "val_fraction": 0.5, "sources": [source]}, "c"))
    split = ShardIndex.open(tmp_path / "o").column("split").tolist()
    assert len(set(split[:10])) == 1 == len(set(split[10:]))
    assert split[0] != split[10]
    config = {"output": str(tmp_path / "none"), "val_fraction": 0.5, "sources": [{**source, "group": r"q(\d)"}]}
    with pytest.raises(InputError, match=r"pattern 'q\(\\\\d\)' matches none of 12 names, for example not 'p00.png'"):
        build_records(parse_config(config, "c"))


def test_damaged_files_end_the_build_unless_allowed(tmp_path, config, captions):
    (captions / "p04.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(InputError, match=r"source captions, p04\.txt: p04\.png: .*max_rejected is 0"):
        build_records(read_config(config))
    assert not (tmp_path / "mix").exists()
    content = yaml.safe_load(config.read_text())
    summary = build_records(parse_config({**content, "max_rejected": 1}, "c"))
    assert summary.reused == 3
    assert summary.card["rejected"] == 1
    row = json.loads((tmp_path / "mix/rejected.jsonl").read_text())
    assert row["key"] == "captions-000000005"
    assert summary.card["sources"]["captions"]["samples"] == 11


def test_the_card_counts_what_is_there(tmp_path, config):
    card = build_records(read_config(config)).card
    assert card == json.loads((tmp_path / "mix/data_card.json").read_text())
    assert card["fields"] == {"conversation": 2 * PART_SAMPLES + 9, "images": 12, "text": 12}
    assert card["licenses"] == {"CC0-1.0": 2 * PART_SAMPLES + 9, "not stated": 12}
    assert card["longer_side_px"] == {"16-31": 12}
    assert sum(card["splits"].values()) == card["samples"] == sum(card["text_characters"].values())
    page = (tmp_path / "mix/DATA_CARD.md").read_text()
    assert "| Dialogs | 1033 |" in page


def test_a_build_that_is_killed_goes_on_and_ends_the_same(tmp_path, config):
    build_records(read_config(config))
    whole = contents(tmp_path / "mix")
    (tmp_path / "mix").rename(tmp_path / "whole")
    # The process kills itself when its second part is about to be written.
    program = (
        "import os, signal, sys\n"
        "import data_engine.build_records as build\n"
        "from data_engine.build_config import read_config\n"
        "write, count = build.write_part, []\n"
        "def dying(folder, name, *rest):\n"
        "    count.append(name)\n"
        "    if len(count) == 2:\n"
        "        (folder / f'{name}.tar.building').write_bytes(b'half')\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(folder, name, *rest)\n"
        "build.write_part = dying\n"
        f"build.build_records(read_config(__import__('pathlib').Path({str(config)!r})))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == -signal.SIGKILL
    assert not (tmp_path / "mix").exists()
    assert len(list((tmp_path / ".mix.parts").glob("*.json"))) == 1
    summary = build_records(read_config(config))
    assert summary.reused == 1
    assert contents(tmp_path / "mix") == whole


def test_workers_do_not_outlive_a_killed_build(tmp_path, config):
    content = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**content, "workers": 2}))
    program = (
        "import os, signal, threading, time, sys\n"
        "import data_engine.build_records as build\n"
        "from data_engine.build_config import read_config\n"
        "if __name__ == '__main__':\n"
        "    with build._writers(2) as submit:\n"
        "        pids = {submit_pid.result() for submit_pid in [build.ProcessPoolExecutor.submit(\n"
        "            submit.__closure__[0].cell_contents, os.getpid) for _ in range(8)]}\n"
        "        print(*pids, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    file = tmp_path / "killed.py"
    file.write_text(program)
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=60)
    pids = [int(word) for word in done.stdout.split()]
    assert pids
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_two_builds_of_one_output_exclude_each_other(tmp_path, config):
    import fcntl

    work = tmp_path / ".mix.parts"
    work.mkdir()
    lock = os.open(work, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with pytest.raises(InputError, match=r"another build of .* is running"):
            build_records(read_config(config))
    finally:
        os.close(lock)


def test_a_cut_part_is_made_again(tmp_path, config):
    build_records(read_config(config))
    whole = contents(tmp_path / "mix")
    (tmp_path / "mix").rename(tmp_path / "whole")
    captions = tmp_path / "pictures/p04.png"
    good = captions.read_bytes()
    stamp = captions.stat()
    captions.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(InputError):
        build_records(read_config(config))
    captions.write_bytes(good)
    os.utime(captions, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    for part in (tmp_path / ".mix.parts").glob("*.tar"):
        part.write_bytes(part.read_bytes()[:-512])
    assert build_records(read_config(config)).reused == 0
    assert contents(tmp_path / "mix") == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shard_sise": "1MB"}, "unknown key 'shard_sise'. Did you mean 'shard_size'"),
        ({"sources": []}, "sources is empty"),
        ({"sources": [{"kind": "lava", "name": "a"}]}, "unknown kind 'lava'. Did you mean 'llava'"),
        ({"sources": [{"kind": "llava", "name": "a", "annotation": "b"}]}, "Did you mean 'annotations'"),
        ({"sources": [{"kind": "llava", "name": "a"}]}, "kind llava needs annotations"),
        ({"sources": [{"kind": "llava", "annotations": "b"}]}, "kind llava needs name"),
        ({"sources": [{"kind": "llava", "name": "...", "annotations": "b"}]}, "has no letter or digit"),
        ({"sources": [{"kind": "llava", "name": "a", "annotations": 3}]}, "3 is a int, a path is due"),
        (
            {"sources": [{"kind": "coco", "name": "a", "annotations": "b", "images": "c", "segmentation": "quads"}]},
            "Did",
        ),
        ({"sources": [{"kind": "llava", "name": n, "annotations": "b"} for n in ("A b", "a_b")]}, "the same keys"),
        ({"sources": [{"kind": "llava", "name": "a", "annotations": "b", "split": "test"}]}, "split 'test'"),
        ({"transforms": ["without_thinkin"]}, "unknown transform 'without_thinkin'. Did you mean 'without_thinking'"),
        ({"without": "absent.jsonl"}, "cannot read absent.jsonl"),
        ({"workers": 0}, "workers and shard_size are 1 or more"),
        ({"workers": "two"}, "'two' is a str, int is due"),
        ({"val_fraction": 3}, "val_fraction 0 to 1"),
        ({"shard_size": "big"}, "shard_size: 'big' is not a size"),
    ],
)
def test_a_wrong_config_is_explained(tmp_path, config, change, message):
    content = {**yaml.safe_load(config.read_text()), **change}
    with pytest.raises(InputError) as mistake:
        parse_config(content, "mix.yaml")
    assert message in str(mistake.value)
    assert str(mistake.value).startswith("mix.yaml: ") or message[:9] in ("has no le", "cannot re")


def test_a_config_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_config(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="must hold keys"):
        read_config(tmp_path / "list.yaml")


def test_sources_follow_each_other_by_their_keys(tmp_path):
    picture_file = StoredFile("a.png", data=encode(picture(1), "PNG"))
    names = ["b", "a", "a b", "a0"]
    given = [ListSource(name=name, given=(StoredSample("", "", images=(picture_file,), text=name),)) for name in names]
    given.sort(key=lambda source: source.samples().__next__().key.partition("-")[0])
    reader = built(tmp_path / "out", *given)
    keys = [reader.key(row) for row in range(4)]
    assert keys == sorted(keys)
    assert lint_folder(tmp_path / "out") == []
    assert config_of(tmp_path, *given).shaping == config_of(tmp_path / "other", *given, workers=3).shaping


def built_from(config: Path) -> None:
    build_records(read_config(config))


def removal_list(tmp_path, *rows) -> str:
    file = tmp_path / "removed.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def members_of(folder: Path) -> dict[str, dict[str, bytes]]:
    reader = ShardReader(ShardIndex.open(folder))
    return dict(reader.members(row) for row in range(reader.index.count))


def test_a_removal_list_does_what_a_reshard_without_it_does(tmp_path, config, captions, capsys):
    (captions / "p05.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")  # left out, so it is not even opened
    gone = {"captions-000000003": "p02.txt", "captions-000000006": "p05.txt", "dialogs-000000512": "dialogs.jsonl:512"}
    rows = [{"key": key, "path": path, "check": "same file"} for key, path in gone.items()]
    content = yaml.safe_load(config.read_text())
    with pytest.raises(InputError, match=r"p05\.png"):
        build_records(parse_config(content, "c"))
    listed = {**content, "without": removal_list(tmp_path, *rows)}
    summary = build_records(parse_config(listed, "c"))
    assert summary.reused == 1  # the one part that lacks none of them
    assert summary.card["left_out"] == {"same file": 3}
    assert summary.card["rejected"] == 0
    assert "Left out: same file 3." in (tmp_path / "mix/DATA_CARD.md").read_text()
    (captions / "p05.png").write_bytes(encode(picture(5), "PNG"))
    build_records(parse_config({**content, "output": str(tmp_path / "all")}, "c"))
    reshard([ShardIndex.open(tmp_path / "all")], tmp_path / "less", 10**6, dict.fromkeys(gone, ListedRemoval("x")))
    assert members_of(tmp_path / "mix") == members_of(tmp_path / "less")
    config.write_text(yaml.safe_dump({**listed, "output": str(tmp_path / "told")}))
    assert main(["data", "build", "-c", str(config)]) == 0
    assert "3 left out (same file 3)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"key": "captions-000000099"}, "'captions-000000099' is in none of the sources"),
        ({"key": "captions-000000003", "path": "p01.txt"}, "captions-000000003 was 'p01.txt' .* and is 'p02.txt' now"),
        ({"kei": "a"}, "removed.jsonl, line 1 is not"),
        ({"key": 3}, "removed.jsonl, line 1 is not"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path, config, row, message):
    content = {**yaml.safe_load(config.read_text()), "without": removal_list(tmp_path, row)}
    config.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=message):
        built_from(config)
    assert not (tmp_path / "mix").exists()


def test_thinking_is_taken_out_and_counted(tmp_path, capsys):
    says = ["<think>so</think>\nfour", "plain", "<think>never ends", "<think>all</think>", "no </think>"]
    given = [StoredSample("", "", conversation=(Turn("assistant", text),)) for text in says]
    given.append(StoredSample("", "", conversation=(Turn("user", "think in <think> tags"),), text="<think></think>a"))
    source = ListSource(name="made", given=tuple(given))
    with pytest.raises(InputError, match=r"without_thinking: a <think> tag without its other half\. max_rejected is 0"):
        build_records(config_of(tmp_path / "out", source, transforms=("without_thinking",)))
    config = config_of(tmp_path / "out", source, transforms=("without_thinking",), max_rejected=3)
    card = build_records(config).card
    assert card["transforms"] == {"without_thinking": {"changed": 2, "refused": 3}}
    assert (card["samples"], card["rejected"]) == (3, 3)
    reader = ShardReader(ShardIndex.open(tmp_path / "out"))
    stored = [reader.stored(row) for row in range(3)]
    assert [sample.conversation[0].text for sample in stored] == ["four", "plain", "think in <think> tags"]
    assert stored[2].text == "a"
    assert "Transform without_thinking: changed 2, refused 3." in (tmp_path / "out/DATA_CARD.md").read_text()
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert reasons[1] == "without_thinking: a turn is nothing but thinking"
    assert build_records(config).made is False
    assert build_records(config_of(tmp_path / "plain", source)).card["samples"] == 6


def test_a_picture_in_the_thinking_is_refused():
    from data_engine.record_transforms import thinking_removed

    sample = StoredSample("", "", conversation=(Turn("assistant", "<think><image></think> this"),))
    with pytest.raises(InputError, match="<image> stands in the thinking"):
        thinking_removed(sample)


def test_a_plain_folder_of_images(tmp_path, image_folder):
    folder = image_folder(6)
    (folder / "notes.txt").write_text("no image")
    (folder / "no_suffix").write_bytes(encode(picture(50), "PNG"))
    source = {"kind": "images", "name": "Photos", "images": str(folder), "group": "Set (.)"}
    config = {"output": str(tmp_path / "out"), "val_fraction": 0.4, "sources": [source]}
    card = build_records(parse_config(config, "c")).card
    assert card["fields"] == {"images": 7}
    assert card["formats"] == {"JPEG": 4, "PNG": 3}
    reader = ShardReader(ShardIndex.open(tmp_path / "out"))
    stored = [reader.stored(row) for row in range(7)]
    names = [sample.images[0].name for sample in stored]
    assert names == sorted(names)
    assert [sample.images[0].read() for sample in stored] == [(folder / name).read_bytes() for name in names]
    splits = reader.index.column("split").tolist()
    assert len({split for name, split in zip(names, splits, strict=True) if name.startswith("Set 0")}) == 1
    (folder / "fake.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"source Photos, fake\.jpg: fake\.jpg: not an image"):
        build_records(parse_config({**config, "output": str(tmp_path / "more")}, "c"))


def test_shards_of_text_alone_can_be_inspected(tmp_path, dialogs, capsys):
    source = {"kind": "llava", "name": "Dialogs", "annotations": str(dialogs)}
    build_records(parse_config({"output": str(tmp_path / "talk"), "sources": [source]}, "c"))
    assert main(["data", "inspect", str(tmp_path / "talk")]) == 0
    assert "longer side" not in capsys.readouterr().out
    assert main(["data", "inspect", str(tmp_path / "talk"), "--sample", "dialogs-000000003"]) == 0
    assert json.loads(capsys.readouterr().out)["origin"] == "dialogs.jsonl:3"


def test_a_build_that_never_began_leaves_nothing(tmp_path, dialogs):
    dialogs.write_text("{")
    source = {"kind": "llava", "name": "Dialogs", "annotations": str(dialogs)}
    with pytest.raises(InputError, match=r"dialogs\.jsonl:1: not JSON"):
        build_records(parse_config({"output": str(tmp_path / "talk"), "sources": [source]}, "c"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dialogs.jsonl"]

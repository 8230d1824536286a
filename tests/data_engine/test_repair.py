"""Each damage to a shard folder is repaired: lint finds nothing in the result, and what is left are the same bytes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_engine.code_fields import CodesField
from data_engine.index import INDEX_FILE, INDEX_FOLDER, ShardIndex, file_sha256, write_index
from data_engine.lint import lint_folder
from data_engine.reader import ShardReader
from data_engine.removals import read_removals
from data_engine.repair import main
from data_engine.repair_splits import lost_samples
from data_engine.reshard import main as reshard_main
from data_engine.shards import ShardWriter
from data_engine.stored_sample import StoredFile, StoredSample
from mmzoo.errors import InputError
from tests.data_engine.conftest import encode, picture
from tests.data_engine.damages import TAR, change_image, change_json, cut_into_the_last, damages, members, other_kind
from tests.data_engine.made_sources import ListSource, built

NAMES = list(damages(b""))
KINDS = ("images", "records")
FRACTION = 0.4


def held(folder: Path) -> dict[str, tuple]:
    index = ShardIndex.open(folder)
    reader = ShardReader(index)
    found = {}
    for row in range(index.count):
        key, stored = reader.members(row)
        sample = reader.sample(row)
        found[key] = (stored, index.splits[index.column("split")[row]], index.facts(row), sample.meta)
    return found


@pytest.fixture
def make(shard_folder, tmp_path):
    """make(kind) -> a sound folder of four samples in one shard; its dates lie in the past."""

    def build(kind: str) -> Path:
        if kind == "images":
            folder = shard_folder(4, shard_bytes=10**6, val_fraction=FRACTION)
        else:
            mask = StoredFile("m.png", data=encode(np.ones((12, 16), np.uint8), "PNG"))
            shown = [StoredFile(f"{seed}.png", data=encode(picture(seed), "PNG")) for seed in range(4)]
            given = [StoredSample("", "", images=(file,), mask=mask, text=file.name) for file in shown]
            folder = tmp_path / "records"
            built(folder, ListSource(name="made", given=tuple(given)), val_fraction=FRACTION)
        for path in folder.rglob("*"):
            os.utime(path, (1e9, 1e9))
        return folder

    return build


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def repaired(folder: Path, output: Path, capsys, *more: str) -> dict:
    assert main([str(folder), "-o", str(output), "--json", *more], "repair") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_of_a_damage_is_sound_and_the_same(make, bomb, tmp_path, capsys, name, kind):
    folder, output = make(kind), tmp_path / "repaired"
    before, tar = held(folder), (folder / TAR).read_bytes()
    damage = damages(bomb)[name]
    damage.do(folder)
    assert lint_folder(folder) != []
    damaged = contents(folder)
    fraction = ["--val-fraction", str(FRACTION)] if damage.bare else []
    if fraction:
        with pytest.raises(InputError, match="no longer says which split the samples belong to"):
            main([str(folder), "-o", str(output)], "repair")
        assert not output.exists()
    summary = repaired(folder, output, capsys, *fraction)
    assert contents(folder) == damaged
    assert lint_folder(output) == []
    after = held(output)
    assert after == {key: before[key] for key in after}
    assert len(after) == 4 - damage.gone == summary["kept"]
    assert summary["found"] == damage.found == summary["kept"] + summary["left_out"]
    assert summary["lost"] == max(0, 4 - damage.found)
    lines = [json.loads(line) for line in (output / "repairs.jsonl").read_text().splitlines()]
    assert lines == summary["repairs"]
    assert all(line["shard"] and line["why"] for line in lines)
    actions = Counter(line["action"] for line in lines)
    assert actions["left out"] + actions["copy left out"] == summary["left_out"]
    assert not set(read_removals(output / "repairs.jsonl")) & set(after)
    if kind == "records":
        told = json.loads((output / "data_card.json").read_text())
        counted = {name: summary[name] for name in ("found", "kept", "left_out", "lost")}
        assert (told["samples"], told["repaired"]) == (len(after), counted)
    if not damage.gone:
        assert (output / TAR).read_bytes() == tar
        assert [path.name for path in output.glob("*.tar")] == [TAR]


@pytest.fixture
def sound(make) -> dict[str, Path]:
    return {kind: make(kind) for kind in KINDS}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(0, 1, exclude_max=True), max_size=2), st.floats(0.85, 1), st.sampled_from(KINDS))
def test_flipped_bytes_and_cuts_anywhere(sound, tmp_path_factory, flips, end, kind):
    """In a json a change may go unnoticed, for nothing says what it was; all other bytes that are kept are the old."""
    tmp = tmp_path_factory.mktemp("flips")
    folder = shutil.copytree(sound[kind], tmp / "set")
    before, entries = held(folder), members(folder)
    data = bytearray((folder / TAR).read_bytes())
    for place in flips:
        data[int(place * len(data))] ^= 0x55
    (folder / TAR).write_bytes(data[: int(end * len(data))])
    texts = [info.offset_data for info, _ in entries if info.name.endswith("json")]
    sizes = {info.offset_data: info.size for info, _ in entries}
    in_json = any(start <= int(place * len(data)) < start + sizes[start] for place in flips for start in texts)
    main([str(folder), "-o", str(tmp / "new"), "--leave-out-unknown"], "repair")
    if not (tmp / "new").exists():
        assert lint_folder(folder) == []
        return
    assert lint_folder(tmp / "new") == []
    for key, (stored, *rest) in held(tmp / "new").items():
        assert {**stored, "json": b""} == {**before[key][0], "json": b""}
        assert in_json or [stored, *rest] == [*before[key]]


@pytest.mark.parametrize("kind", KINDS)
def test_sound_shards_are_left_alone(make, tmp_path, capsys, kind):
    folder = make(kind)
    before = sorted(tmp_path.iterdir())
    assert main([str(folder), "-o", str(tmp_path / "new")], "repair") == 0
    assert "nothing to repair: all 4 samples" in capsys.readouterr().err
    assert repaired(folder, tmp_path / "new", capsys)["repairs"] == []
    assert sorted(tmp_path.iterdir()) == before


def test_a_vanished_shard_is_counted_as_lost(shard_folder, tmp_path, capsys):
    folder = shard_folder(10)
    before = held(folder)
    samples = json.loads((folder / "index" / INDEX_FILE).read_text())["shards"][0]["samples"]
    (folder / TAR).unlink()
    assert main([str(folder), "-o", str(tmp_path / "new")], "repair") == 0
    told = capsys.readouterr().err
    assert f"{10 - samples} samples found = {10 - samples} kept + 0 left out" in told
    assert f"{TAR}  -    lost {samples}  listed in the index, in no tar" in told
    after = held(tmp_path / "new")
    assert len(after) == 10 - samples
    assert after == {key: before[key] for key in after}
    assert ShardIndex.open(tmp_path / "new").content["repaired"]["lost"] == samples


def test_the_table_names_shard_key_and_reason(make, tmp_path, capsys):
    folder = make("records")
    change_image(folder, lambda data: b"")
    main([str(folder), "-o", str(tmp_path / "new")], "repair")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].split() == ["shard", "key", "action", "why"]
    assert lines[1].startswith(f"{TAR}  made-000000001  left out  the json lists image, ")
    assert lines[2].startswith(f"{TAR}  -               mended    sha256 of the tar differs from the index")
    assert lines[-1] == f"4 samples found = 3 kept + 1 left out: {tmp_path / 'new'}"
    card = json.loads((tmp_path / "new/data_card.json").read_text())
    assert card["samples"] == 3
    assert "Repaired: found 4, kept 3, left_out 1, lost 0." in (tmp_path / "new/DATA_CARD.md").read_text()


def test_fixed_splits_and_groups_are_known_without_their_column(tmp_path, capsys):
    sources = [{"kind": "captions", "name": "a", "images": str(tmp_path / "a"), "group": r"(\d)"}]
    sources += [{"kind": "captions", "name": "b", "images": str(tmp_path / "b"), "split": "val"}]
    for number in range(16):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        (folder / f"p{number // 4}-{number}.png").write_bytes(encode(picture(number), "PNG"))
        (folder / f"p{number // 4}-{number}.txt").write_text("words")
    from data_engine.build_config import parse_config
    from data_engine.build_records import build_records

    build_records(parse_config({"output": str(tmp_path / "set"), "val_fraction": 0.5, "sources": sources}, "c"))
    before = held(tmp_path / "set")
    (tmp_path / "set/index/split.npy").unlink()
    assert repaired(tmp_path / "set", tmp_path / "new", capsys)["redrawn"] == 8
    assert held(tmp_path / "new") == before
    assert {split for _, split, _, _ in before.values()} == {"train", "val"}


def test_what_no_repair_can_judge_is_refused(make, tmp_path):
    folder, output = make("images"), tmp_path / "new"
    with pytest.raises(InputError, match="would lie in the shards themselves"):
        main([str(folder), "-o", str(folder / "new")], "repair")
    change_json(folder, lambda data: data.replace(b'"schema_version": 1', b'"schema_version": 7'))
    with pytest.raises(InputError, match=r"has schema version 7, .* Update mmzoo; .* --leave-out-unknown"):
        main([str(folder), "-o", str(output)], "repair")
    assert main([str(folder), "-o", str(output), "--leave-out-unknown"], "repair") == 0
    assert len(held(output)) == 3
    file = folder / "index" / INDEX_FILE
    file.write_text(file.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    with pytest.raises(InputError, match=r"index\.json has schema version 9, this mmzoo knows 1\. Update"):
        main([str(folder), "-o", str(tmp_path / "other")], "repair")
    with pytest.raises(InputError, match=r"no shards .* in a folder at"):
        main([str(tmp_path / "absent"), "-o", str(tmp_path / "other")], "repair")
    with pytest.raises(InputError, match="exists and is not empty"):
        main([str(folder), "-o", str(output)], "repair")
    assert not (tmp_path / "other").exists()


def test_two_kinds_without_an_index_are_refused(make, tmp_path):
    folder = make("images")
    other_kind(folder)
    shutil.rmtree(folder / "index")
    with pytest.raises(InputError, match="key zz is of records, others are of images, and no index says which"):
        main([str(folder), "-o", str(tmp_path / "new"), "--val-fraction", "0.1"], "repair")
    assert not (tmp_path / "new").exists()


def test_nothing_sound_is_refused(make, tmp_path):
    folder = make("images")
    os.truncate(folder / TAR, members(folder)[0][0].offset_data + 3)
    with pytest.raises(InputError, match="none of the 0 samples"):
        main([str(folder), "-o", str(tmp_path / "new")], "repair")
    assert not (tmp_path / "new").exists()


def test_a_full_disk_leaves_nothing(make, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = make("records")
    cut_into_the_last(folder)
    sound = make("images")
    monkeypatch.setattr(ShardWriter, "_write", full)
    for command, source in ((main, folder), (reshard_main, sound)):
        with pytest.raises(InputError, match=r"No space left on device. Free space and run again"):
            command([str(source), "-o", str(tmp_path / "new")], "any")
    assert not list(tmp_path.glob("*new*"))


def test_a_tar_that_cannot_be_read_is_named_and_lost(shard_folder, tmp_path, capsys):
    folder = shard_folder(10)
    (folder / TAR).unlink()
    (folder / TAR).mkdir()
    assert f"{TAR}: key -, offset -: cannot be read: Is a directory" in [each.line() for each in lint_folder(folder)]
    summary = repaired(folder, tmp_path / "new", capsys)
    assert summary["kept"] == 10 - summary["lost"] < 10


def test_a_repair_that_is_killed_leaves_nothing_and_can_be_run_again(make, tmp_path, capsys):
    folder = make("records")
    cut_into_the_last(folder)
    program = (
        "import os, signal, sys\n"
        "import data_engine.repair_write as write\n"
        "from data_engine.repair import main\n"
        "write.finish_records = lambda *given: os.kill(os.getpid(), signal.SIGKILL)\n"
        "main(sys.argv[1:], 'repair')\n"
    )
    command = [sys.executable, "-c", program, str(folder), "-o", str(tmp_path / "new")]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    assert not (tmp_path / "new").exists()
    assert list(tmp_path.glob(".new.building-*"))
    repaired(folder, tmp_path / "new", capsys)
    assert len(held(tmp_path / "new")) == 3
    assert not list(tmp_path.glob(".new.building-*"))


def test_code_shards_are_repaired_where_their_index_describes_them(tmp_path, capsys):
    field = CodesField("int16", (2, 2, 1), 9)
    (tmp_path / "codes").mkdir()
    with ShardWriter(tmp_path / "codes", 10**6) as writer:
        for number in range(4):
            meta = {"schema_version": 1, "source": "s", "path": f"{number}.png", "sha256": str(number), "width": 5}
            data = json.dumps({**meta, "height": 7, "mode": "RGB", "format": "PNG"}).encode()
            writer.add(f"k{number}", {"codes.npy": field.pack(np.full((2, 2, 1), number)), "json": data})
    with pytest.raises(InputError, match="holds codes, and no index says what they must be"):
        main([str(tmp_path / "codes"), "-o", str(tmp_path / "new"), "--val-fraction", "0.5"], "repair")
    known = {"kind": "codes", "source": "s", "fields": ["codes", "json"], "codes": field.as_json(), "rules": {"a": 1}}
    known["splits"] = {"names": ["train", "val"], "val_fraction": 0.5}
    write_index(tmp_path / "codes", known, writer.shards, {"split": np.zeros(1, np.uint8)})
    path = tmp_path / "codes" / TAR
    data = path.read_bytes()
    path.write_bytes(data.replace(field.pack(np.full((2, 2, 1), 2)), bytes(136)))
    summary = repaired(tmp_path / "codes", tmp_path / "new", capsys)
    assert [summary[name] for name in ("found", "kept", "left_out", "redrawn")] == [4, 3, 1, 3]
    assert lint_folder(tmp_path / "new") == []
    reader = ShardReader(ShardIndex.open(tmp_path / "new"))
    assert [int(reader.sample(row).fields["codes"].max()) for row in range(3)] == [0, 1, 3]
    assert reader.index.content["rules"] == {"a": 1}


def test_an_index_that_names_shards_it_does_not_list_is_not_believed(tmp_path):
    columns = {"key_hash": np.array([1, 2], np.uint64), "shard": np.array([0, 5], np.int32)}
    (tmp_path / INDEX_FOLDER).mkdir()
    described = {}
    for name, values in columns.items():
        file = tmp_path / INDEX_FOLDER / f"{name}.npy"
        np.save(file, values)
        described[name] = {"sha256": file_sha256(file)}
    content = {"columns": described, "shards": [{"name": "a.tar"}]}
    assert lost_samples(tmp_path, content, set()) == {}
    listed = {**content, "shards": [{"name": f"{number}.tar"} for number in range(6)]}
    assert lost_samples(tmp_path, listed, set()) == {"0.tar": 1, "5.tar": 1}

"""Each damage to a sound shard folder is found and named; a sound one gives no finding."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile

import numpy as np
import pytest

from data_engine.index import INDEX_FILE
from data_engine.lint import lint_folder
from data_engine.look import lint
from data_engine.record_members import pack_record
from data_engine.stored_sample import StoredSample
from mmzoo.errors import InputError
from tests.data_engine.damages import TAR, change_json, members, rewrite


@pytest.fixture
def folder(shard_folder):
    folder = shard_folder(4, shard_bytes=10**6)
    for path in folder.rglob("*"):  # so that damage done within the clock's resolution is newer
        os.utime(path, (1e9, 1e9))
    return folder


def whats(folder):
    return [finding.what for finding in lint_folder(folder)]


def only(folder, text, besides=("sha256 of the tar differs",)):
    """The findings that speak of the damage, when there are no others than the expected ones beside them."""
    findings = lint_folder(folder)
    found = [finding for finding in findings if text in finding.what]
    others = [finding.what for finding in findings if text not in finding.what]
    assert found, others
    assert all(any(other.startswith(known) for known in besides) for other in others), others
    return found


def test_a_sound_folder(folder, capsys):
    assert lint_folder(folder) == []
    assert lint([str(folder)], "lint") == 0
    assert lint([str(folder), "--json"], "lint") == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2]) == {"total": 0, "findings": []}


def test_a_copy_with_other_dates_is_sound(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copy)
    os.utime(tmp_path / "copy" / TAR, (2e9, 2e9))
    assert lint_folder(tmp_path / "copy") == []


@pytest.mark.parametrize("cut", [200, 1024, 3000, 10**9])
def test_truncated_tar(folder, cut):
    data = (folder / TAR).read_bytes()
    (folder / TAR).write_bytes(data[:-cut] if cut < len(data) else b"")
    assert any("truncated" in what for what in whats(folder))


def test_damaged_header_in_the_middle(folder):
    """tarfile itself takes it for the end of the archive, and says nothing."""
    data = bytearray((folder / TAR).read_bytes())
    info = members(folder)[2][0]
    data[info.offset + 5] ^= 0xFF
    (folder / TAR).write_bytes(data)
    [finding] = only(folder, "no member header here")
    assert finding.offset == info.offset


def test_flipped_bytes_in_an_image(folder):
    data = bytearray((folder / TAR).read_bytes())
    info = next(info for info, _ in members(folder) if info.name.endswith("jpg"))
    data[info.offset_data + info.size // 2] ^= 0x10
    (folder / TAR).write_bytes(data)
    findings = only(folder, "sha256 of the image differs", ("sha256 of the tar", "damaged or truncated"))
    assert [(finding.shard, finding.key, finding.offset) for finding in findings] == [
        (TAR, info.name[: -len(".jpg")], info.offset_data)
    ]


def test_zero_length_member(folder):
    entries = members(folder)
    rewrite(folder, [(entries[0][0], b""), *entries[1:]])
    only(folder, "zero-length member")


@pytest.mark.parametrize(("lost", "text"), [(0, "no image"), (1, "no json")])
def test_missing_pair_member(folder, lost, text):
    entries = members(folder)
    del entries[lost]
    rewrite(folder, entries)
    only(folder, f"missing pair member: {text}")


def test_duplicate_key(folder):
    entries = members(folder)
    rewrite(folder, [*entries, *entries[:2]])
    [finding] = only(folder, "duplicate key")
    assert finding.key == entries[0][0].name.partition(".")[0]


def test_duplicate_key_in_another_shard(folder):
    shutil.copy(folder / TAR, folder / "shard-000001.tar")
    assert len(only(folder, "duplicate key", ("the index does not list",))) == 4


def test_two_images_under_one_key(folder):
    entries = members(folder)
    rewrite(folder, [entries[0], *entries])
    only(folder, "2 image members")


def test_keys_out_of_order(folder):
    entries = members(folder)
    rewrite(folder, [*entries[2:], *entries[:2]])
    only(folder, "key out of order")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tile_12.5m_001.jpg", "dotted stem"),
        ("../escape.jpg", "path leaves the folder"),
        ("/etc/passwd.jpg", "path leaves the folder"),
        ("Über.jpg", "other characters"),
        (f"{'z' * 81}.jpg", "has more than 80 characters"),
        ("zzz.pkl", "pickle member"),
        ("zzz.pyd", "pickle member"),
        ("zzz.exe", "no known type"),
    ],
)
def test_names(folder, name, text):
    entries = members(folder)
    extra = tarfile.TarInfo(name)
    rewrite(folder, [*entries, (extra, entries[0][1])])
    assert any(text in what for what in whats(folder))


@pytest.mark.parametrize(
    ("kind", "text"),
    [(tarfile.SYMTYPE, "a symlink"), (tarfile.LNKTYPE, "a hard link"), (tarfile.FIFOTYPE, "no regular file")],
)
def test_members_that_are_no_files(folder, kind, text):
    link = tarfile.TarInfo("zzz.jpg")
    link.type, link.linkname = kind, "/etc/passwd"
    rewrite(folder, [*members(folder), (link, b"")])
    only(folder, text)


def test_bomb(folder, bomb):
    entries = members(folder)
    index = next(number for number, (info, _) in enumerate(entries) if info.name.endswith("png"))
    entries[index] = (entries[index][0], bomb)
    rewrite(folder, entries)
    only(folder, "too many pixels, not decoded", ("sha256 of the",))


def test_pickle_under_an_image_name(folder):
    entries = members(folder)
    rewrite(folder, [(entries[0][0], b"\x80\x04K\x01."), *entries[1:]])
    only(folder, "not an image of a known format", ("sha256 of the",))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: data.replace(b"photos", b"ph\xfftos"), "json is not UTF-8"),
        (lambda data: data[:-1], "json cannot be parsed"),
        (lambda data: b"[1]", "json is not an object"),
        (lambda data: data.replace(b'"schema_version": 1', b'"schema_version": 7'), "unknown schema version 7"),
        (lambda data: b'{"schema_version": 1, "path": "x"}', "json lacks source, sha256"),
        (lambda data: data.replace(b'"width": 16', b'"width": 17'), "json says width 17, the image has 16"),
    ],
)
def test_json(folder, change, text):
    change_json(folder, change)
    only(folder, text)


def test_wrong_sha256_of_the_tar_alone(folder):
    """Bytes that belong to no member, changed under an unchanged date."""
    data = bytearray((folder / TAR).read_bytes())
    info = members(folder)[0][0]
    padding = info.offset_data + info.size
    assert data[padding] == 0
    data[padding] = 1
    (folder / TAR).write_bytes(data)
    os.utime(folder / TAR, (1e9, 1e9))
    assert whats(folder) == ["sha256 of the tar differs from the index"]


def test_index_older_than_the_tar(folder):
    entries = members(folder)
    for info, _ in entries:
        info.mtime = 5
    rewrite(folder, entries)
    assert "sha256 of the tar differs from the index: the index is older than the tar" in whats(folder)


def test_a_record_among_images(folder):
    record = pack_record(StoredSample("zzz", "s", text="words"))
    info = tarfile.TarInfo("zzz.json")
    rewrite(folder, [*members(folder), (info, record.members["json"][1])])
    [finding] = only(folder, "a sample of records among images")
    assert finding.key == "zzz"


def test_index_damage(folder):
    (folder / "index" / "split.npy").write_bytes(b"")
    (folder / "index" / "width.npy").unlink()
    assert sorted(whats(folder)) == ["missing", "sha256 differs from the index"]


def test_offsets_that_point_elsewhere(folder):
    """A consistent index of other shards' offsets: every sha256 fits, only the places are wrong."""
    column = folder / "index" / "offset.npy"
    np.save(column, np.load(column) + 512)
    file = folder / "index" / INDEX_FILE
    content = json.loads(file.read_text())
    content["columns"]["offset"]["sha256"] = hashlib.sha256(column.read_bytes()).hexdigest()
    file.write_text(json.dumps(content))
    assert whats(folder) == ["the offsets in the index are not those of the members"]


def test_unlisted_and_missing_shards(folder):
    (folder / TAR).rename(folder / "shard-000009.tar")
    assert sorted(whats(folder)) == ["the index does not list this shard", "the index lists it, but it is missing"]


def test_no_index(folder):
    shutil.rmtree(folder / "index")
    [what] = whats(folder)
    assert "has no index" in what


def test_not_a_shard_folder(tmp_path):
    with pytest.raises(InputError, match="no shards"):
        lint_folder(tmp_path)
    with pytest.raises(InputError, match="no shard folder"):
        lint_folder(tmp_path / "absent")


def test_output_and_exit_code(folder, capsys):
    change_json(folder, lambda data: b"[1]")
    assert lint([str(folder)], "lint") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(lines) - 1} findings"
    assert any(line.startswith(f"{TAR}: key set_") and line.endswith(": json is not an object") for line in lines)
    assert lint([str(folder), "--json"], "lint") == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["total"] == len(printed["findings"]) == len(lines) - 1

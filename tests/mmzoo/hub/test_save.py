"""Saving: whole and on the disk, or nothing; the permissions of any new file; nothing of the machine in it."""

from __future__ import annotations

import errno
import json
import os
import resource
import stat
from pathlib import Path

import pytest
import torch

from mmzoo.errors import InputError
from mmzoo.hub import save
from mmzoo.hub.save import save_model
from tokenizers_visual.evotok.modeling import EvoTokModel
from tokenizers_visual.evotok.processing import EvoTokImageProcessor

FILES = {"config.json", "model.safetensors", "preprocessor_config.json", "zoo.json", "README.md"}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_follow_the_umask(model: EvoTokModel, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        extra = {"extra.safetensors": {"a": torch.zeros(2)}}
        folder = save_model(model, tmp_path / "saved", processor=EvoTokImageProcessor(32), extra=extra)
    finally:
        os.umask(before)
    assert {path.name for path in folder.iterdir()} == {*FILES, "extra.safetensors"}
    assert mode(folder) == 0o777 & ~umask
    assert {path.name: mode(path) for path in folder.iterdir()} == dict.fromkeys(
        [*FILES, "extra.safetensors"], 0o666 & ~umask
    )


def test_every_file_is_on_the_disk_before_the_folder_gets_its_name(model: EvoTokModel, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "saved"
    flushed = []
    monkeypatch.setattr(save, "flush", lambda path: flushed.append((path.name, folder.exists())))
    save_model(model, folder, processor=EvoTokImageProcessor(32))
    assert {name for name, named in flushed if not named} >= FILES
    assert flushed[-1] == (tmp_path.name, True)
    assert flushed[-2][0].startswith(".saved.")  # the folder's own list of names


def test_a_system_that_refuses_to_write_is_one_line(model: EvoTokModel, tmp_path: Path) -> None:
    """A limit on file sizes stands in for the full disk: the same refusal from the same call, by another name."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    try:
        with pytest.raises(InputError, match=r"saved cannot be written \(File too large\)\. Free space") as caught:
            save_model(model, tmp_path / "saved")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["write_zoo_file", "flush", "follow_umask", "card_text"])
def test_a_full_disk_at_any_step_leaves_nothing(model: EvoTokModel, tmp_path: Path, monkeypatch, step: str) -> None:
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(save, step, full)
    with pytest.raises(InputError, match=r"saved cannot be written \(No space left on device\)"):
        save_model(model, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_ours_keeps_its_trace(model: EvoTokModel, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(save, "card_text", lambda content: content["no such entry"])
    with pytest.raises(KeyError):
        save_model(model, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/saved", "/proc/no/saved", "/dev/null/saved"])
def test_an_unwritable_place_is_the_users_mistake(model: EvoTokModel, place: str) -> None:
    with pytest.raises(InputError, match=f"{place} cannot be written"):
        save_model(model, place)


def test_a_used_folder_is_left_alone(model: EvoTokModel, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine").write_text("x")
    with pytest.raises(InputError, match="exists and is not empty"):
        save_model(model, tmp_path / "used")
    assert [path.name for path in tmp_path.rglob("*")] == ["used", "mine"]
    (tmp_path / "empty").mkdir()
    assert (save_model(model, tmp_path / "empty") / "zoo.json").is_file()


def test_no_path_of_the_machine_is_published(model: EvoTokModel, tmp_path: Path) -> None:
    record = {
        "command": f"mmzoo fit -c {tmp_path}/tiny.yaml --run={tmp_path}/run --index '{tmp_path}/my shards'",
        "data": {"index": f"{tmp_path}/shards", "identity": "f" * 64},
        "working_directory": str(tmp_path),
        "resumed_from": f"{tmp_path}/run/checkpoints/step_00000004",
        "receipts": [{"init_from": f"{tmp_path}/a/model", "receipt": {"source": f"{tmp_path}/a/model", "files": {}}}],
        "hardware": {"platform": "secret"},
    }
    folder = save_model(model, tmp_path / "saved", processor=EvoTokImageProcessor(32), record=record)
    for name in FILES - {"model.safetensors"}:
        assert str(tmp_path) not in (folder / name).read_text(), name
        assert "secret" not in (folder / name).read_text(), name
    run = json.loads((folder / "zoo.json").read_text())["run"]
    assert run["command"] == "mmzoo fit -c tiny.yaml --run=run --index 'my shards'"
    assert run["data"] == {"index": "shards", "identity": "f" * 64}
    assert run["resumed_from"] == "step_00000004"

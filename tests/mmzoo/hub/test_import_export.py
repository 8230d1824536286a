"""`mmzoo models import` and `export`: there and back to the bit, whole or not at all, one line for a mistake."""

from __future__ import annotations

import errno
import json
import os
import resource
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import mmzoo
from mmzoo.cli import main
from mmzoo.hub.official import EXTRA_FILE
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.family import TINY
from tokenizers_visual.evotok.modeling import EvoTokModel
from tokenizers_visual.evotok.official import USAGE_ROWS, USAGE_WINDOW, to_official

CONV = "decoder.conv_in.weight"


@pytest.fixture(scope="module")
def official(model: EvoTokModel) -> dict[str, Tensor]:
    window = torch.arange(USAGE_ROWS * 4).reshape(USAGE_ROWS, 4).float()
    return to_official(model.state_dict(), EvoTokConfig(**TINY), {USAGE_WINDOW: window})


@pytest.fixture
def bring(tmp_path: Path):
    """Runs the import of `state`, saved as the authors would; returns the exit code."""

    def run(state: object, name: str = "last.pt", out: Path | str = tmp_path / "imported") -> int:
        (tmp_path / "sizes.json").write_text(json.dumps(TINY))
        file = tmp_path / name
        if isinstance(state, bytes):
            file.write_bytes(state)
        elif file.suffix == ".safetensors":
            save_file(state, file)
        else:
            torch.save(state, file)
        words = ["--weights", str(file), "--config", str(tmp_path / "sizes.json"), "--out", str(out)]
        return main(["models", "import", "evotok", *words])

    return run


@pytest.fixture
def take(tmp_path: Path):
    """Runs the export of the imported folder; returns the exit code."""
    return lambda out, *flags: main(["models", "export", str(tmp_path / "imported"), "--out", str(out), *flags])


def one_line(capsys) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("loaded ")]
    assert len(lines) == 1, err
    assert lines[0].startswith("mmzoo: ")
    return lines[0]


@pytest.mark.parametrize("name", ["last.pt", "last.safetensors"])
@pytest.mark.parametrize("window", [True, False])
def test_there_and_back_to_the_bit(official, bring, take, tmp_path: Path, name: str, window: bool) -> None:
    state = official if window else {key: tensor for key, tensor in official.items() if key != USAGE_WINDOW}
    assert bring({"ema": None, "model": state} if name.endswith(".pt") else state, name) == 0
    assert take(tmp_path / "back.safetensors") == 0
    assert take(tmp_path / "back.pt") == 0
    for back in (
        load_file(tmp_path / "back.safetensors"),
        torch.load(tmp_path / "back.pt", weights_only=True)["model"],
    ):
        assert back.keys() == state.keys()
        assert all(torch.equal(back[key], state[key]) and back[key].dtype == state[key].dtype for key in state)
    zoo = json.loads((tmp_path / "imported/zoo.json").read_text())
    assert set(zoo["files"]) == {"config.json", "model.safetensors", EXTRA_FILE}
    assert zoo["run"]["command"] == (f"mmzoo models import evotok --weights {name} --config sizes.json --out imported")
    assert zoo["started_from"][0]["official weights"] == name
    assert len(zoo["started_from"][0]["sha256"]) == 64
    assert str(tmp_path) not in (tmp_path / "imported/README.md").read_text()


def test_tensors_that_share_memory_are_taken_apart(official, bring, tmp_path: Path) -> None:
    both = torch.randn(64, 64)
    state = {**official, "decode_task_layer.0.weight": both, "decode_task_layer.2.weight": both.view(64, 64)}
    assert bring(state) == 0
    loaded = mmzoo.from_pretrained(tmp_path / "imported").state_dict()
    assert torch.equal(loaded["decode_head.0.weight"], both)
    assert torch.equal(loaded["decode_head.2.weight"], both)


def test_an_export_never_damages_the_folder_it_reads(official, bring, take, tmp_path: Path, capsys) -> None:
    assert bring(official) == 0
    capsys.readouterr()
    assert take(tmp_path / "imported" / "model.safetensors", "--overwrite") == 2
    assert "lies in the model folder itself" in one_line(capsys)
    mmzoo.from_pretrained(tmp_path / "imported")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({1: torch.zeros(1)}, "names tensors by other things than text: 1"),
        ({CONV: torch.zeros(3).to_sparse()}, f"holds sparse tensors: {CONV}"),
        ({"made by": Path("a")}, "it holds more than tensors, or is damaged"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_of_more_than_named_dense_tensors_is_refused(official, bring, change, words, capsys) -> None:
    assert bring({"model": {**official, **change}}) == 2
    assert words in one_line(capsys)


def test_a_missing_config_says_so(tmp_path: Path, capsys) -> None:
    words = ["--weights", "w.pt", "--config", str(tmp_path / "no.json"), "--out", str(tmp_path / "out")]
    assert main(["models", "import", "evotok", *words]) == 2
    assert "there is no config file" in one_line(capsys)


def test_a_file_in_the_way_of_the_extra_one_leaves_no_folder(official, bring, tmp_path, monkeypatch, capsys) -> None:
    def full(tensors, file, *arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("safetensors.torch.save_file", full)  # only the extra file is written by this name
    assert bring(official) == 2
    assert "cannot be written (No space left on device)" in one_line(capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "sizes.json"]


def test_a_changed_or_lost_extra_file_is_refused(official, bring, take, tmp_path: Path, capsys) -> None:
    assert bring(official) == 0
    file = tmp_path / "imported" / EXTRA_FILE
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    capsys.readouterr()
    assert take(tmp_path / "back.pt") == 2
    assert f"the content of {EXTRA_FILE} has changed" in one_line(capsys)
    file.unlink()
    assert take(tmp_path / "back.pt") == 2
    assert f"lacks {EXTRA_FILE}" in one_line(capsys)
    assert not (tmp_path / "back.pt").exists()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"ema": None}, "holds no weights: 'ema' is None. Save the state_dict"),
        ({"model": {}, "state_dict": 3}, "'model' is an empty dict, 'state_dict' is of type int"),
        ({"model": {"a": "b"}}, "['model'] holds other things than tensors: a (str)"),
        ({"epoch": 3}, "holds other things than tensors: epoch (int)"),
        ([1, 2], "holds no dictionary of tensors"),
        (b"no archive", "cannot be read as weights"),
        ({}, "official weights, missing: "),
    ],
)
def test_a_file_without_weights_is_one_line(bring, tmp_path: Path, capsys, state, words: str) -> None:
    assert bring(state) == 2
    assert words in one_line(capsys)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensor: tensor.flatten(1), "wrong shape: decoder.conv_in.weight is (64, 288), not (64, 32, 3, 3)"),
        (lambda tensor: tensor.long(), "another kind of number: pixel_decoder.conv_in.weight is torch.int64"),
        (lambda tensor: tensor * float("nan"), "holds NaN in decoder.conv_in.weight"),
    ],
)
def test_a_tensor_that_cannot_be_right_is_one_line(official, bring, tmp_path, capsys, change, words: str) -> None:
    assert bring({**official, CONV: change(official[CONV])}) == 2
    assert words in one_line(capsys)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("out", ["/proc/imported", "/proc/a/imported", "/dev/null/imported"])
def test_an_unwritable_import_is_one_line(official, bring, capsys, out: str) -> None:
    assert bring(official, out=out) == 2
    assert f"{out} cannot be written" in one_line(capsys)


def test_an_unwritable_export_is_one_line(official, bring, take, tmp_path: Path, capsys) -> None:
    assert bring(official) == 0
    capsys.readouterr()
    (tmp_path / "folder.pt").mkdir()
    for out, words in {
        "/proc/back.safetensors": "/proc/back.safetensors cannot be written",
        "/proc/back.pt": "/proc/back.pt cannot be written",
        tmp_path / "folder.pt": "is a folder",
        tmp_path / "absent/back.pt": "does not exist",
        tmp_path / "last.pt": "exists. Pass --overwrite",
        tmp_path / "back.bin": "the suffix must be",
    }.items():
        assert take(out) == 2
        assert words in one_line(capsys)


@pytest.mark.parametrize("name", ["back.safetensors", "back.pt"])
def test_a_system_that_refuses_to_write_keeps_the_old_export(official, bring, take, tmp_path, capsys, name) -> None:
    assert bring(official) == 0
    (tmp_path / name).write_text("old")
    before = sorted(tmp_path.iterdir())
    capsys.readouterr()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    try:
        assert take(tmp_path / name, "--overwrite") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written (File too large)" in one_line(capsys)
    assert (tmp_path / name).read_text() == "old"
    assert sorted(tmp_path.iterdir()) == before
    assert take(tmp_path / name, "--overwrite") == 0
    reference = tmp_path / "plain"
    reference.touch()
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == stat.S_IMODE(reference.stat().st_mode)

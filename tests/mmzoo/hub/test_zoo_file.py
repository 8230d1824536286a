"""zoo.json: what a folder's files hash to, checked at every load."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

import mmzoo
from mmzoo.errors import InputError
from mmzoo.hub.save import save_model
from tokenizers_visual.evotok.modeling import EvoTokModel


def test_it_lists_weights_and_config_with_versions(folder: Path) -> None:
    record = json.loads((folder / "zoo.json").read_text())
    assert (record["schema"], record["family"]) == (1, "evotok")
    assert record["versions"].keys() >= {"mmzoo", "torch", "transformers"}
    assert set(record["files"]) == {"config.json", "model.safetensors"}
    for name, expected in record["files"].items():
        content = (folder / name).read_bytes()
        assert expected == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("load", [mmzoo.from_pretrained, EvoTokModel.from_pretrained])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_flipped_bit_is_refused_by_name(folder: Path, load, name: str) -> None:
    assert load(folder).load_receipt.hashes == "verified"
    content = bytearray((folder / name).read_bytes())
    # In config.json a blank becomes a tab: still the same JSON.
    place = content.index(b" ") if name == "config.json" else len(content) - 5
    content[place] = 9 if name == "config.json" else content[place] ^ 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"could not be loaded: the content of {name} has changed"):
        load(folder)


def test_weights_that_it_does_not_list_are_refused(model: EvoTokModel, folder: Path) -> None:
    record = json.loads((folder / "zoo.json").read_text())
    del record["files"]["model.safetensors"]
    (folder / "zoo.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"zoo\.json does not list model\.safetensors"):
        mmzoo.from_pretrained(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"schema": 1, "files": []}', "cannot be read"),
        ('{"schema": 1, "files": {"config.json": 3}}', "cannot be read"),
        ('{"schema": 1, "files": {"config.json": {"size": 3}}}', "cannot be read"),
        ('{"schema": 9, "files": {}}', "has schema 9; this mmzoo reads schema 1"),
    ],
)
def test_one_that_is_not_ours_is_refused(folder: Path, content: str, words: str) -> None:
    (folder / "zoo.json").write_text(content)
    with pytest.raises(InputError, match=rf"zoo\.json {words}"):
        mmzoo.from_pretrained(folder)


def test_a_folder_without_one_loads_and_says_so(model: EvoTokModel, tmp_path: Path, capsys) -> None:
    model.save_pretrained(tmp_path / "plain")
    receipt = mmzoo.from_pretrained(tmp_path / "plain").load_receipt
    assert receipt.hashes == "not recorded"
    assert len(receipt.files["model.safetensors"]) == 64
    assert "(hashes: not recorded)" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [0.5, 0.001])
def test_a_truncated_file_without_one_is_refused_too(folder: Path, kept: float) -> None:
    (folder / "zoo.json").unlink()
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(InputError, match=r"could not be loaded: model\.safetensors is damaged or incomplete"):
        mmzoo.from_pretrained(folder)


def test_it_says_what_the_weights_were_started_from(folder: Path, tmp_path: Path) -> None:
    loaded = mmzoo.from_pretrained(folder)
    shutil.rmtree(folder)
    again = json.loads((save_model(loaded, tmp_path / "again") / "zoo.json").read_text())
    receipt = again["started_from"][0]["receipt"]
    assert receipt["files"] == {"model.safetensors": loaded.load_receipt.files["model.safetensors"]}
    assert receipt["source"] == "saved"  # the folder's name, not its place
    assert "origins" not in receipt

"""Models by Hub id, from a cache folder laid out as the Hub client's, without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mmzoo
from mmzoo.errors import InputError
from mmzoo.hub.source import snapshot_commit
from tokenizers_visual.evotok.modeling import EvoTokModel

REPOSITORY = Path(__file__).parents[3]
MAIN, TAGGED = "a" * 40, "0123456789" * 4

#: The Hub client reads its environment when it is imported, hence another process.
BY_ID = """
import json, sys

import mmzoo
from mmzoo.errors import InputError
from mmzoo.hub.auto import register_families
from tokenizers_visual.evotok.modeling import EvoTokModel

register_families()
from transformers import AutoModel

receipts = {}
loads = {"zoo": mmzoo.from_pretrained, "class": EvoTokModel.from_pretrained, "auto": AutoModel.from_pretrained}
for name, load in loads.items():
    for revision in (None, "v1", "0123456789" * 4):
        model = load("owner/name", **({"revision": revision} if revision else {}))
        receipts[f"{name} {revision}"] = model.load_receipt.as_json()
        assert model.config.name_or_path == "owner/name", model.config.name_or_path
try:
    mmzoo.from_pretrained("owner/name", revision="absent")
except InputError as mistake:
    receipts["absent"] = str(mistake)
assert "lightning" not in sys.modules
print(json.dumps(receipts))
"""


def add_snapshot(cache: Path, folder: Path, commit: str, ref: str) -> None:
    repository = cache / "models--owner--name"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / ref).write_text(commit)


def test_a_hub_id_leaves_a_whole_receipt_with_the_commit(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for commit, ref in ((MAIN, "main"), (TAGGED, "v1")):
        add_snapshot(cache, folder, commit, ref)
    child = subprocess.run(
        [sys.executable, "-c", BY_ID],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    receipts = json.loads(child.stdout.splitlines()[-1])
    assert "owner/name at revision absent is neither a local folder nor reachable" in receipts.pop("absent")
    assert len(receipts) == 9
    for name, receipt in receipts.items():
        assert receipt["source"] == "owner/name", name
        assert receipt["revision"] == (MAIN if name.endswith("None") else TAGGED), name
        assert list(receipt["files"]) == ["model.safetensors"], name
        assert receipt["hashes"] == "verified", name
        assert receipt["tensors_from_file"] == receipt["tensors"] == 231, name
    lines = [line for line in child.stderr.splitlines() if line]
    assert all(line.startswith("loaded owner/name: 231/231 tensors") for line in lines), child.stderr
    assert len(lines) == 9


def test_only_a_snapshot_of_the_cache_has_a_commit(tmp_path: Path) -> None:
    assert snapshot_commit(tmp_path / "models--owner--name/snapshots" / MAIN) == MAIN
    assert snapshot_commit(tmp_path / "models--owner--name/snapshots/step_00000100") is None
    assert snapshot_commit(tmp_path / "snapshots" / MAIN) is None


@pytest.mark.parametrize("load", [mmzoo.from_pretrained, EvoTokModel.from_pretrained])
def test_a_folder_has_no_revisions(folder: Path, load) -> None:
    with pytest.raises(InputError, match=r"revision 'v1' was given for the local folder .*saved"):
        load(folder, revision="v1")


@pytest.mark.parametrize("name", ["./owner/name", "owner", "owner/name/more", "/owner/name"])
def test_what_is_neither_folder_nor_id_is_refused_without_the_network(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    for load in (mmzoo.from_pretrained, EvoTokModel.from_pretrained):
        with pytest.raises(InputError, match="there is no model folder"):
            load(name)

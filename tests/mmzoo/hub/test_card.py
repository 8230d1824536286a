"""The card: figures of the record and no others, the same text for the same record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mmzoo.hub.facts import command_without_paths, name_of, plain
from mmzoo.hub.save import save_model
from tokenizers_visual.evotok.modeling import EvoTokModel

RECORD = {
    "command": "mmzoo fit -c evotok/tiny-natural --run runs/tiny",
    "data": {"index": "runs/shards", "identity": "c0ffee" * 10},
    "seed": 3,
    "step": 200,
    "git_commit": "d" * 40,
    "variant": "evotok/tiny with ema_decay=0.95",
    "metrics": {"val/psnr": 15.9612345, "val/commitment": float("nan")},
    "samples": 72,
    "versions": {"lightning": "2.6.6"},
    "receipts": [
        {"teacher": {"source": "owner/name", "layer": "encoder", "revision": None}},
        {"init_from": "/somewhere/model", "receipt": {"files": {"model.safetensors": "ab" * 32}, "revision": "e" * 40}},
    ],
}


def card(folder: Path) -> str:
    return (folder / "README.md").read_text()


def test_it_says_what_the_record_says(model: EvoTokModel, tmp_path: Path) -> None:
    text = card(save_model(model, tmp_path / "saved", record={**RECORD, "licence": "cc0-1.0"}))
    for line in (
        "# evotok/tiny",
        "- Variant: evotok/tiny with ema_decay=0.95",
        "- Family: evotok",
        "- Licence of these weights: cc0-1.0",
        "- Command: `mmzoo fit -c evotok/tiny-natural --run runs/tiny`",
        f"- Data (sha256 of the index): {'c0ffee' * 10}",
        "- Steps: 200",
        "- Seed: 3",
        f"- Code: {'d' * 40}",
        "- Started from: teacher source=owner/name layer=encoder; "
        f"init_from model, model.safetensors sha256 {'ab' * 32}, revision {'e' * 40}",
        "On the validation samples, after step 200; n counts samples.",
        "| val/psnr | 15.9612 | 72 |",
        "| val/commitment | nan | 72 |",
    ):
        assert line in text.splitlines(), line
    assert "lightning 2.6.6" in text
    assert "torch 2." in text
    assert 'mmzoo.from_pretrained("THIS_FOLDER")' in text
    assert "Licence of the family: Apache-2.0 (this code); the authors' repository carries no licence" in text
    assert "Not measured." not in text
    front = yaml.safe_load(text.split("---")[1])
    assert front == {"license": "cc0-1.0", "library_name": "mmzoo", "tags": ["mmzoo", "evotok"]}


def test_what_is_not_known_is_said_to_be(model: EvoTokModel, tmp_path: Path) -> None:
    text = card(save_model(model, tmp_path / "saved"))
    assert text.rstrip().endswith("## Measured\n\nNot measured.")
    for name in ("Variant", "Command", "Data (sha256 of the index)", "Steps", "Seed", "Code"):
        assert f"- {name}: not recorded" in text.splitlines()
    assert "- Licence of these weights: not stated" in text
    assert "license" not in yaml.safe_load(text.split("---")[1])  # the licence of our code is not the weights'


def test_it_is_deterministic(model: EvoTokModel, tmp_path: Path) -> None:
    first, second = (save_model(model, tmp_path / name, record=RECORD) for name in ("first", "second"))
    for name in ("README.md", "zoo.json", "config.json", "model.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_zoo_json_is_strict_json(model: EvoTokModel, tmp_path: Path) -> None:
    text = (save_model(model, tmp_path / "saved", record=RECORD) / "zoo.json").read_text()
    record = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert record["run"]["metrics"] == {"val/psnr": 15.9612345, "val/commitment": "nan"}
    assert (record["variant"], record["run"]["step"], record["run"]["samples"]) == (RECORD["variant"], 200, 72)


@pytest.mark.parametrize(
    ("command", "published"),
    [
        ("mmzoo fit -c runs/a.yaml", "mmzoo fit -c runs/a.yaml"),
        ("mmzoo fit -c /home/me/a.yaml --run ~/runs/x", "mmzoo fit -c a.yaml --run x"),
        ("mmzoo fit --a=/b/c --d '/e f/g h'", "mmzoo fit --a=c --d 'g h'"),
        ("mmzoo fit --files '[/a/b,/c/d.yaml]'", "mmzoo fit --files '[b,d.yaml]'"),
        ("""mmzoo fit --model '{"source": "/a/b"}'""", """mmzoo fit --model '{"source": "b"}'"""),
        ("mmzoo fit --from https://host.org/a/b file:///a/b", "mmzoo fit --from https://host.org/a/b b"),
        ("mmzoo fit 'unbalanced /a/b", "mmzoo fit 'unbalanced b"),
    ],
)
def test_paths_in_a_command_are_cut_to_names(command: str, published: str) -> None:
    assert command_without_paths(command) == published


def test_other_text_keeps_its_slashes() -> None:
    for text in ("evotok/tiny", "val/psnr", "a / b", "1/2", "https://host.org/a"):
        assert name_of(text) == text
    assert plain({"a": ["/x/y", 1, None, True, 0.5, float("inf")]}) == {"a": ["y", 1, None, True, 0.5, "inf"]}

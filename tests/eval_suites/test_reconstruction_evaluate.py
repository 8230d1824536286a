"""`mmzoo eval run reconstruction` on a real tiny tokenizer: shards and folders, whole or resumed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from eval_suites.reconstruction import evaluate
from eval_suites.record import read_record
from mmzoo import cli
from mmzoo.hub.save import save_model
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.family import TINY
from tokenizers_visual.evotok.modeling import EvoTokModel


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with model/, images/ (5 pictures, two of one scene) and shards/."""
    folder = tmp_path_factory.mktemp("reconstruction")
    torch.manual_seed(0)
    save_model(EvoTokModel(EvoTokConfig(**TINY)), folder / "model")
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number, (width, height) in enumerate([(40, 32), (33, 50), (64, 64), (32, 32), (90, 47)]):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"scene{min(number, 3)}_{number}.png")
    options = ["--group", r"(scene\d+)_", "--val-fraction", "0"]
    assert cli.main(["data", "build", "images", str(folder / "images"), str(folder / "shards"), *options]) == 0
    return folder


def run(place, out, *extra, data="images"):
    words = ["eval", "run", "reconstruction", "--model", str(place / "model"), "--data", str(place / data)]
    assert cli.main([*words, "--out", str(out), "--device", "cpu", "--levels", "1,2", *extra]) == 0
    return read_record(out / "record.json")


def test_shards_and_folder_hold_the_same_numbers(place, tmp_path):
    folder = run(place, tmp_path / "folder")
    shards = run(place, tmp_path / "shards", "--split", "train", data="shards")
    assert (folder.data.n, shards.data.n) == (5, 5)
    assert (folder.metrics[0].n_groups, shards.metrics[0].n_groups) == (5, 4)  # shards know the scenes
    names = ["psnr@1", "ssim@1", "psnr@2", "ssim@2"]
    assert [metric.name for metric in folder.metrics] == names
    for name in names:
        assert folder.metric(name).value == pytest.approx(shards.metric(name).value, abs=1e-4)
        assert folder.metric(name).low < folder.metric(name).value < folder.metric(name).high


def test_interrupted_anywhere_it_ends_the_same(place, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "BATCH", 1)
    whole = run(place, tmp_path / "whole")
    measure, calls = evaluate.measure, []

    def cut(*arguments, **named):
        calls.append(arguments[1][0][0])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(*arguments, **named)

    monkeypatch.setattr(evaluate, "measure", cut)
    words = ["--model", str(place / "model"), "--data", str(place / "images"), "--levels", "1,2", "--device", "cpu"]
    assert cli.main(["eval", "run", "reconstruction", *words, "--out", str(tmp_path / "cut")]) == 130
    resumed = run(place, tmp_path / "cut")
    assert resumed.metrics == whole.metrics
    assert resumed.samples == whole.samples
    assert len(calls) == 6  # five images, and the one that was cut


def test_a_limit_is_a_setting(place, tmp_path):
    record = run(place, tmp_path / "few", "--limit", "2")
    assert record.data.n == 2
    assert record.suite.settings["limit"] == 2


def test_a_broken_image_is_named(place, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes((place / "images/scene0_0.png").read_bytes()[:60])
    words = ["--model", str(place / "model"), "--data", str(tmp_path / "images"), "--out", str(tmp_path / "out")]
    assert cli.main(["eval", "run", "reconstruction", *words, "--device", "cpu"]) == 2
    assert "images/a.png: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

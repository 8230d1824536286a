"""The demo verb: what it refuses, and one short run from pictures to the report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_engine.sources import scikit_image
from mmzoo.cli import main
from mmzoo.demo import MARKER, Demo, prepare_folder, put_back
from mmzoo.errors import InputError
from mmzoo.families import get_family
from tokenizers_visual.evotok.demo_measure import MeanColourTokens, level_steps


def test_the_wheel_of_scikit_image_has_the_pictures(tmp_path: Path):
    copied = scikit_image.copy_pictures(tmp_path / "pictures")
    assert len(copied) == len(set(scikit_image.PICTURES)) == 20
    assert all(Image.open(path).size[0] > 64 for path in copied)


def test_a_folder_of_the_users_is_never_cleared(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        prepare_folder(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_an_earlier_demo_is_replaced(tmp_path: Path):
    out = tmp_path / "demo"
    prepare_folder(out)
    (out / "report.html").write_text("old")
    earlier = prepare_folder(out)
    assert [path.name for path in out.iterdir()] == [MARKER]
    assert (earlier / "report.html").read_text() == "old"
    (out / "half").touch()
    put_back(out, earlier)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [MARKER, "demo", "report.html"]


def test_a_killed_demo_does_not_cost_the_one_before(tmp_path: Path):
    out = tmp_path / "demo"
    prepare_folder(out)
    (out / "report.html").write_text("old")
    prepare_folder(out)
    (out / "half").touch()
    earlier = prepare_folder(out)  # the second one never came to its end
    assert (earlier / "report.html").read_text() == "old"
    assert [path.name for path in out.iterdir()] == [MARKER]


@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_too_few_pictures_leave_the_earlier_demo(pictures: int, tmp_path: Path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("few").mkdir()
    for number in range(pictures):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(f"few/{number}.png")
    prepare_folder(Path("runs/demo"))
    Path("runs/demo/report.html").write_text("old")
    assert main(["demo", "--images", "few"]) == 2
    assert ("2 and 1. Add images" if pictures == 2 else "the demo stopped at") in capfd.readouterr().err
    assert sorted(path.name for path in Path("runs").rglob("*")) == [MARKER, "demo", "report.html"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evotoc"], "Did you mean 'evotok'"),
        (["--images", "nowhere"], "there is no folder nowhere"),
        (["--steps", "0"], "--steps 0"),
        (["--images", ".", "--out", "."], "holds the images themselves"),
        (["--out", "file"], "cannot be written"),
    ],
)
def test_mistakes_are_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(["demo", *arguments]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


def test_a_step_that_fails_ends_the_demo(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    demo = Demo(get_family("evotok"), None, tmp_path, None, "mmzoo demo")
    with pytest.raises(InputError, match="the demo stopped at `mmzoo data build images"):
        demo.run("shards", "data", "build", "images", tmp_path / "nowhere", tmp_path / "shards")
    assert "no folder at" in capfd.readouterr().err


def test_one_colour_a_token_is_exact_on_flat_patches():
    import torch

    images = torch.full((1, 3, 8, 8), -1.0)
    images[:, 0] = 1.0
    tokens = MeanColourTokens(4)
    codes, _ = tokens.encode(images)
    assert codes.tolist() == [[[[255, 0, 0]] * 2] * 2]
    torch.testing.assert_close(tokens.decode_pixels(codes), images)


@pytest.mark.parametrize(("levels", "steps"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])])
def test_level_steps(levels: int, steps: list[int]):
    assert level_steps(levels) == steps


def test_a_short_demo_on_the_users_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    pictures = tmp_path / "pictures of mine"
    pictures.mkdir()
    random = np.random.default_rng(0)
    for number in range(6):
        coarse = Image.fromarray(random.integers(0, 255, (6, 9, 3), dtype=np.uint8))
        coarse.resize((90, 70), Image.Resampling.BICUBIC).save(pictures / f"{number}.png")
    assert main(["demo", "--images", str(pictures), "--steps", "5"]) == 0
    out = tmp_path / "runs" / "demo"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "mmzoo demo --images" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    results = json.loads((out / "results.json").read_text())
    assert set(results["held_out"]) == {"1", "2", "4"}
    assert results["held_out"]["4"]["psnr"]["n_values"] >= 40
    assert "reconstruction" in results["reloaded_bit_equal"]
    card = (out / "tokenizer" / "checkpoints" / "best" / "model" / "README.md").read_text()
    assert "val/psnr" in card
    assert str(tmp_path) not in card

"""`mmzoo reconstruct`: any sound image gives its pictures; a mistake is one line and leaves no file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmzoo.cli import main
from mmzoo.hub.save import save_model
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.family import TINY
from tokenizers_visual.evotok.modeling import EvoTokModel
from tokenizers_visual.evotok.picture_sheet import GAP, LINE
from tokenizers_visual.evotok.reconstruct import _psnr, _record


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(EvoTokModel(EvoTokConfig(**TINY)).eval(), tmp_path_factory.mktemp("evotok") / "model")


@pytest.fixture
def run(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder").mkdir()
    Image.new("RGB", (50, 40), "red").save("x.png")
    Image.new("RGB", (50, 40)).save("x.jpg")
    Image.new("RGB", (50, 40), "blue").save("x2.png")
    Path("broken.png").write_bytes(Path("x.png").read_bytes()[:60])
    return lambda *words: main(["reconstruct", *words, "--model", str(model)])


@pytest.mark.parametrize(("mode", "size"), [("RGB", (1, 1)), ("RGBA", (300, 2)), ("L", (33, 70)), ("CMYK", (32, 32))])
def test_any_image_gives_its_pictures(run, mode: str, size: tuple[int, int]) -> None:
    name = "an [odd] näme.tif"
    Image.new(mode, size).save(name)
    assert run(name, "--out", "out/deep", "--levels", "2,1,2") == 0
    written = sorted(path.name for path in Path("out/deep").iterdir())
    assert written == [*(f"an [odd] näme_{end}.png" for end in ("input", "levels1", "levels2")), "sheet.png"]
    assert all(Image.open(Path("out/deep") / name).size == (32, 32) for name in written[:-1])


def test_the_figures_are_those_of_the_pictures(run, capsys) -> None:
    Image.effect_noise((64, 48), 80).convert("RGB").save("noise.png")
    assert run("x.png", "noise.png", "--out", "out", "--levels", "1,2,4", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["levels"] == [1, 2, 4]
    for image in found["images"]:
        original = np.asarray(Image.open(image["input"]), np.float64)
        for values in image["levels"].values():
            error = np.square(original - np.asarray(Image.open(values["picture"]), np.float64)).mean()
            assert values["psnr_db"] == pytest.approx(10 * np.log10(255**2 / error))
    assert run("x.png", "noise.png", "--out", "out", "--levels", "1,2,4") == 0
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head == ["PSNR,", "dB", "levels", "1", "levels", "2", "levels", "4"]
    assert [row[0] for row in rows] == ["x", "noise", "mean"]
    for row, image in zip(rows[:-1], found["images"], strict=True):
        assert row[1:] == [f"{values['psnr_db']:.2f}" for values in image["levels"].values()]
    first, second, mean = [[float(text) for text in row[1:]] for row in rows]
    assert mean == pytest.approx([(a + b) / 2 for a, b in zip(first, second, strict=True)], abs=0.011)


def test_the_sheet_shows_every_picture(run) -> None:
    assert run("x.png", "x2.png", "--out", "out", "--levels", "1,4") == 0
    sheet = np.asarray(Image.open("out/sheet.png"))
    side = 96 + GAP  # 32 px pictures, three times enlarged
    for down, stem in enumerate(("x", "x2")):
        for right, end in enumerate(("input", "levels1", "levels4")):
            top, left = GAP + down * (side + LINE) + LINE, GAP + right * side
            tile = sheet[top : top + 96, left : left + 96]
            assert np.array_equal(tile[::3, ::3], np.asarray(Image.open(f"out/{stem}_{end}.png")))
    assert sheet.shape == (2 * (side + LINE) + GAP, 3 * side + GAP, 3)


def test_equal_pictures_have_no_number_in_json(tmp_path) -> None:
    model = EvoTokModel(EvoTokConfig(**TINY))
    black = Image.new("RGB", (8, 8))
    assert _psnr(black, black) == float("inf")
    found = _record(tmp_path, model, [1], {"a": {1: float("inf")}})
    assert json.loads(json.dumps(found, allow_nan=False))["images"][0]["levels"]["1"]["psnr_db"] is None


@pytest.mark.parametrize("part", ["", "pixel_decoder"])
def test_a_diverged_model_gives_no_pictures(run, tmp_path, capsys, part) -> None:
    broken = EvoTokModel(EvoTokConfig(**TINY)).eval()
    with torch.no_grad():
        for name, weight in broken.named_parameters():
            if part in name:
                weight.fill_(float("nan"))
    save_model(broken, tmp_path / "broken")
    assert main(["reconstruct", "x.png", "--out", "out", "--model", str(tmp_path / "broken")]) == 2
    assert "output is not finite" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.png", "--out", "file"], "--out file is a file"),
        (["x.png", "--out", "file/in"], "file/in cannot be written (Not a directory)"),
        (["x.png", "broken.png", "--out", "out"], "'broken.png': damaged or truncated PNG"),
        (["x.png", "file", "--out", "out"], "'file': not an image"),
        (["folder", "--out", "out"], "is a folder; name the images in it"),
        (["nope.png", "--out", "out"], "does not exist"),
        (["x.png", "x.jpg", "--out", "out"], "two of the images are called 'x'"),
        (["x.png", "--out", "out", "--levels", "0"], "--levels 0: this model has 4"),
        (["x.png", "--out", "out", "--levels", "99"], "--levels 99: this model has 4"),
        (["x.png", "--out", "out", "--levels", "abc"], "give numbers"),
        (["x.png", "--out", "out", "--levels", ""], "give numbers"),
        (["x.png"], "required: --out. See: mmzoo reconstruct --help"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(run, arguments, words, capsys) -> None:
    before = sorted(Path.cwd().iterdir())
    assert run(*arguments) == 2
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if not line.startswith("loaded ")]
    assert output.out == ""
    assert len(lines) == 1
    assert words in lines[0]
    assert sorted(Path.cwd().iterdir()) == before

"""`mmzoo reconstruct`: any sound image gives its pictures; a mistake is one line and leaves no file."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mmzoo.cli import main
from mmzoo.hub.save import save_model
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.family import TINY
from tokenizers_visual.evotok.modeling import EvoTokModel


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
    Path("broken.png").write_bytes(Path("x.png").read_bytes()[:60])
    return lambda *words: main(["reconstruct", *words, "--model", str(model)])


@pytest.mark.parametrize(("mode", "size"), [("RGB", (1, 1)), ("RGBA", (300, 2)), ("L", (33, 70)), ("CMYK", (32, 32))])
def test_any_image_gives_its_pictures(run, mode: str, size: tuple[int, int]) -> None:
    name = "an [odd] näme.tif"
    Image.new(mode, size).save(name)
    assert run(name, "--out", "out/deep", "--levels", "2,1,2") == 0
    written = sorted(path.name for path in Path("out/deep").iterdir())
    assert written == [f"an [odd] näme_{end}.png" for end in ("input", "levels1", "levels2")]
    assert all(Image.open(Path("out/deep") / name).size == (32, 32) for name in written)


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

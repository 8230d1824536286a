"""Images for the reconstruction suite: the same from a folder and from shards, brought to size as stated."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_engine.index import ShardIndex
from eval_suites.reconstruction.images import open_images
from eval_suites.reconstruction.resize import Resize
from mmzoo import cli
from mmzoo.errors import InputError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """images/: six pictures, two of one scene, one a copy of another, one JPEG turned by its EXIF; shards/ of them."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    (folder / "images/deep").mkdir(parents=True)
    for name, (width, height) in {"scene1_a": (40, 32), "scene1_b": (33, 50), "deep/scene2": (64, 64)}.items():
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{name}.png")
    (folder / "images/zcopy.png").write_bytes((folder / "images/deep/scene2.png").read_bytes())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / "images/t.jpg", exif=exif)
    Image.fromarray(random.integers(0, 256, (20, 30), dtype=np.uint8)).save(folder / "images/grey.png")
    (folder / "images/notes.txt").write_text("no image")
    words = [str(folder / "images"), str(folder / "shards"), "--group", r"(scene\d)", "--val-fraction", "0"]
    assert cli.main(["data", "build", "images", *words]) == 0
    return folder


def test_a_folder_and_its_shards_are_the_same_images(place):
    folder = open_images(place / "images", group=r"(scene\d)")
    shards = open_images(place / "shards", split="train")
    assert folder.keys == shards.keys == sorted(folder.keys)
    assert folder.groups == shards.groups
    assert len(folder) == 6
    for number in range(6):
        assert np.array_equal(folder.pixels(number), shards.pixels(number))
    assert (folder.kind, folder.split, shards.kind, shards.split) == ("folder", None, "shards", "train")


def test_scenes_and_copies_share_a_group_and_exif_is_applied(place):
    images = open_images(place / "images", group=r"(scene\d)")
    groups = {key.rpartition("-")[0]: group for key, group in zip(images.keys, images.groups, strict=True)}
    assert groups["scene1_a"] == groups["scene1_b"] == "scene1"
    assert groups["zcopy"] == groups["deep_scene2"] == "scene2"
    turned = images.keys.index(next(key for key in images.keys if key.startswith("t-")))
    assert images.pixels(turned).shape == (30, 20, 3)


def test_a_long_narrow_image_does_not_explode():
    with pytest.raises(InputError, match="would become 4096x409600 px"):
        Resize("square", 4096).apply(np.zeros((10, 1000, 3), np.uint8))


def test_a_limit_takes_the_same_ones_anywhere_and_more_of_them_when_it_grows(place):
    folder = open_images(place / "images", limit=3)
    assert folder.keys == open_images(place / "shards", split="train", limit=3).keys
    assert set(folder.keys) < set(open_images(place / "images", limit=5).keys)
    assert folder.keys != open_images(place / "images").keys[:3]  # not by the alphabet


def test_what_the_data_is_changes_with_its_bytes_only(place, tmp_path):
    first = open_images(place / "images").identity
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for file in (place / "images").glob("*.png"):
        (copy / file.name).write_bytes(file.read_bytes())
    some = open_images(copy)
    assert some.identity != first
    assert open_images(copy).identity == some.identity
    Image.new("RGB", (40, 32)).save(copy / "scene1_a.png")
    assert open_images(copy).identity != some.identity
    with pytest.raises(InputError, match=r"scene1_a.png has changed since"):
        some.pixels(next(number for number, key in enumerate(some.keys) if key.startswith("scene1_a")))


def test_a_users_mistake_is_named(place, tmp_path):
    with pytest.raises(InputError, match="leaves no image"):
        open_images(place / "images", limit=0)
    with pytest.raises(InputError, match="no split 'test'"):
        open_images(place / "shards", split="test")
    with pytest.raises(InputError, match=r"the split 'val' .* is empty"):
        open_images(place / "shards")
    with pytest.raises(InputError, match="groups were set when they were built"):
        open_images(place / "shards", split="train", group="(a)")
    with pytest.raises(InputError, match="no folder at"):
        open_images(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match="no image in"):
        open_images(tmp_path)
    (tmp_path / "cut.png").write_bytes((place / "images/grey.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"cut.png: .* mmzoo data build images"):
        open_images(tmp_path)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
def test_sizes_after_a_resize(height, width, size):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert Resize("none").apply(pixels) is pixels
    assert Resize("square", size).apply(pixels).shape == (size, size, 3)
    if min(height, width) < size:
        with pytest.raises(InputError, match="holds no crop"):
            Resize("crop", size).apply(pixels)
        return
    cropped = Resize("crop", size).apply(pixels)
    rows, columns = height // size * size, width // size * size
    top, left = (height - rows) // 2, (width - columns) // 2
    assert np.array_equal(cropped, pixels[top : top + rows, left : left + columns])
    assert cropped.flags.c_contiguous


def test_a_square_is_antialiased_and_leaves_pixels_alone_where_it_can():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = Resize("square", 16).apply(stripes)
    assert np.abs(small[:, 2:-2].astype(int) - 128).max() <= 1  # 2 px stripes cannot survive 4 px steps
    wide = np.random.default_rng(0).integers(0, 256, (16, 30, 3), dtype=np.uint8)
    assert np.array_equal(Resize("square", 16).apply(wide), wide[:, 7:23])


def test_the_record_says_what_was_done():
    assert Resize("none").describe() == {"how": "none", "size": None}
    assert Resize("crop", 16).describe() == {"how": "crop", "size": 16}
    assert "Pillow" in Resize("square", 256).describe()["filter"]
    for wrong in (("square", None), ("none", 3), ("crop", 0), ("fit", 3)):
        with pytest.raises(InputError, match="resize"):
            Resize(*wrong)


def test_shards_of_codes_are_no_images(tmp_path, monkeypatch):
    (tmp_path / "index").mkdir()
    monkeypatch.setattr(ShardIndex, "open", lambda folder: SimpleNamespace(fields=["codes", "json"]))
    with pytest.raises(InputError, match="holds codes, json, not images"):
        open_images(tmp_path)

"""EvoTok's crops and image processor: the recorded crops exactly, chance only from the generator, bytes both ways."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, PretrainedConfig

from mmzoo.errors import InputError
from tokenizers_visual.evotok.processing import (
    CenterCrop,
    EvoTokImageProcessor,
    TrainingCrop,
    adm_center_crop,
    to_rgb,
)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sample(pixels: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(fields={"image": pixels})


def to_bytes(image: torch.Tensor) -> np.ndarray:
    return EvoTokImageProcessor().postprocess(image[None])[0]


def test_recorded_crops_exactly(shared):
    folder = shared / "parity/evotok/preprocess"
    cases = json.loads((folder / "cases.json").read_text())
    crops = load_file(folder / "crops.safetensors")
    assert len(cases["cases"]) == 10
    for case in cases["cases"]:
        with Image.open(folder / case["file"]) as image:
            crop = adm_center_crop(to_rgb(image), cases["target_size"])
            batch = EvoTokImageProcessor(cases["target_size"])(image)["pixel_values"]
        expected = crops[case["tensor"]].numpy()
        assert np.array_equal(np.asarray(crop), expected), case["file"]
        assert np.array_equal(np.asarray(EvoTokImageProcessor().postprocess(batch)[0]), expected), case["file"]


def test_all_bytes_there_and_back():
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    processor = EvoTokImageProcessor(resize_mode="none")
    values = processor(ramp)["pixel_values"]
    assert values.shape == (1, 3, 16, 16)
    assert values.dtype == torch.float32
    assert (float(values.min()), float(values.max())) == (-1.0, 1.0)
    assert np.array_equal(np.asarray(processor.postprocess(values)[0]), ramp)


def test_postprocess_rounds_to_the_nearest_and_clamps():
    levels = torch.tensor([-3.0, -1 + 0.6 / 127.5, 1 - 0.4 / 127.5, 2.0])
    image = EvoTokImageProcessor().postprocess(levels.expand(1, 3, 1, 4).bfloat16().float())[0]
    assert np.asarray(image)[0, :, 0].tolist()[::3] == [0, 255]
    image = EvoTokImageProcessor().postprocess(levels.expand(1, 3, 1, 4))[0]
    assert np.asarray(image)[0, :, 0].tolist() == [0, 1, 255, 255]


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    size=st.integers(1, 32),
    native=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_training_crop_has_its_size_and_depends_on_the_generator_alone(height, width, size, native, seed):
    pixels = picture(height, width)
    crop = TrainingCrop(size, native_crop=native)
    first, second = (crop(sample(pixels), np.random.default_rng(seed))["image"] for _ in range(2))
    assert first.shape == (3, size, size)
    assert first.dtype == torch.float32
    assert float(first.abs().max()) <= 1
    assert torch.equal(first, second)
    after = np.random.default_rng(seed)
    crop(sample(pixels), after)
    expected = np.random.default_rng(seed)
    expected.random(4)
    assert after.random() == expected.random()


def test_native_crops_are_pieces_of_the_image_and_reach_every_place():
    pixels = np.arange(6 * 5, dtype=np.uint8).reshape(6, 5, 1).repeat(3, 2)
    random, seen = np.random.default_rng(0), set()
    crop = TrainingCrop(4, native_crop=True, flip=0.5)
    for _ in range(200):
        piece = np.asarray(to_bytes(crop(sample(pixels), random)["image"]))[:, :, 0]
        flipped = piece[0, 0] > piece[0, 1]
        piece = piece[:, ::-1] if flipped else piece
        top, left = divmod(int(piece[0, 0]), 5)
        assert np.array_equal(piece, pixels[top : top + 4, left : left + 4, 0])
        seen.add((top, left, bool(flipped)))
    assert seen == {(top, left, flip) for top in range(3) for left in range(2) for flip in (False, True)}


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flip_probability_at_its_ends(flip):
    pixels = picture(8, 8)
    image = TrainingCrop(8, scale_max=1.0, flip=flip)(sample(pixels), np.random.default_rng(0))["image"]
    assert np.array_equal(np.asarray(to_bytes(image)), pixels[:, ::-1] if flip else pixels)


def test_shorter_side_covers_the_whole_range_and_no_more(monkeypatch):
    sides = set()

    def record(image, size):
        sides.add(size)
        return image.resize((size, size))

    monkeypatch.setattr("tokenizers_visual.evotok.crops.shorter_side_to", record)
    random = np.random.default_rng(0)
    for _ in range(200):
        TrainingCrop(16)(sample(picture(20, 20)), random)
    assert sides == {16, 17, 18, 19, 20}


def test_center_crop_equals_the_processor():
    pixels = picture(50, 37)
    image = CenterCrop(16)(sample(pixels), np.random.default_rng(0))["image"]
    assert torch.equal(image, EvoTokImageProcessor(16)(Image.fromarray(pixels))["pixel_values"][0])


def test_read_only_pixels_are_not_written_through():
    pixels = picture(9, 9)
    pixels.setflags(write=False)
    image = TrainingCrop(9, native_crop=True, flip=1.0)(sample(pixels), np.random.default_rng(0))["image"]
    image.zero_()
    assert np.array_equal(pixels, picture(9, 9))


def test_resize_modes_and_batches():
    images = [Image.fromarray(picture(20, 30)), picture(40, 10)]
    processor = EvoTokImageProcessor(16)
    assert processor(images)["pixel_values"].shape == (2, 3, 16, 16)
    assert processor(images, resize_mode="stretch", image_size=8)["pixel_values"].shape == (2, 3, 8, 8)
    assert processor(images[0], resize_mode="none")["pixel_values"].shape == (1, 3, 20, 30)
    with pytest.raises(InputError, match="2 sizes"):
        processor(images, resize_mode="none")


def test_image_rules():
    rgb = picture(4, 6)
    alpha = np.concatenate([rgb, np.zeros((4, 6, 1), np.uint8)], 2)
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(alpha))), rgb)
    grey = rgb[:, :, 0]
    assert np.array_equal(np.asarray(to_rgb(grey)), grey[:, :, None].repeat(3, 2))
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    assert np.array_equal(np.asarray(to_rgb(wide))[:, :, 1], grey)
    turned = Image.fromarray(rgb)
    turned.getexif()[0x0112] = 6  # rotate by 90 degrees clockwise to show
    assert np.array_equal(np.asarray(to_rgb(turned)), np.rot90(rgb, -1))
    palette = Image.fromarray(rgb).quantize(8)
    palette.info["transparency"] = bytes([0, 255])
    assert to_rgb(palette).mode == "RGB"


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(picture(4, 4, seed)) for seed in range(2)]
    frames[0].save(tmp_path / "two.png", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "two.png") as image:
        image.seek(1)
        assert np.array_equal(np.asarray(to_rgb(image)), np.asarray(frames[0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainingCrop(0), "size is 0"),
        (lambda: TrainingCrop(8, scale_min=0.5), "scale_min 0.5"),
        (lambda: TrainingCrop(8, scale_max=0.9), "scale_max 0.9"),
        (lambda: TrainingCrop(8, flip=2), "probability"),
        (lambda: EvoTokImageProcessor(0), "image_size is 0"),
        (lambda: EvoTokImageProcessor(resize_mode="strech"), "Did you mean 'stretch'"),
        (lambda: EvoTokImageProcessor()([]), "no images"),
        (lambda: EvoTokImageProcessor()("a.png"), "expected PIL images"),
        (lambda: EvoTokImageProcessor()(np.zeros((4, 4), np.float32)), "float32"),
        (lambda: EvoTokImageProcessor()(np.zeros((3, 4, 5), np.uint8)), r"\(3, 4, 5\)"),
        (lambda: EvoTokImageProcessor()(Image.new("F", (4, 4))), "floating-point"),
        (lambda: EvoTokImageProcessor().postprocess(torch.zeros(3, 4, 4)), r"\(B, 3, H, W\)"),
    ],
)
def test_wrong_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


class StandInConfig(PretrainedConfig):
    model_type = "evotok_processing_test"


def test_saved_and_found_again_by_the_auto_class(tmp_path):
    AutoImageProcessor.register(StandInConfig, image_processor_classes={"pil": EvoTokImageProcessor})
    EvoTokImageProcessor(48, "stretch").save_pretrained(tmp_path)
    values = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert values == {
        "image_processor_type": "EvoTokImageProcessor",
        "image_size": 48,
        "resize_mode": "stretch",
    }
    for loaded in (EvoTokImageProcessor.from_pretrained(tmp_path), AutoImageProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, EvoTokImageProcessor)
        assert (loaded.image_size, loaded.resize_mode) == (48, "stretch")

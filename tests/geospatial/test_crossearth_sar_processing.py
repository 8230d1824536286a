"""Rasters in: bands, units, nodata and normalisation; what the model was not made for is refused, with what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.modeling import CrossEarthSARModel
from geospatial.crossearth_sar.processing import CrossEarthSARImageProcessor
from geospatial.crossearth_sar.scaling import restored_raster
from mmzoo.errors import InputError
from mmzoo.hub.auto import register_families
from mmzoo.hub.save import save_model


def raster(bands=1, height=20, width=30, low=0.0, high=255.0, seed=0):
    values = np.random.default_rng(seed).uniform(low, high, (bands, height, width)).astype(np.float32)
    return values[0] if bands == 1 else values


DB = {"domain": "db", "value_range": (-25, 0)}
AMPLITUDE = {"domain": "amplitude", "value_range": (0, 400)}


def test_one_band_is_replicated_and_normalised():
    values = raster()
    batch = CrossEarthSARImageProcessor()(values)
    assert batch["pixel_values"].shape == (1, 3, 20, 30)
    assert batch["valid"].all()
    for band, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        expected = (torch.from_numpy(values) / 255 - mean) / std
        torch.testing.assert_close(batch["pixel_values"][0, band], expected)


@pytest.mark.parametrize("settings", [{}, DB, AMPLITUDE])
def test_raster_values_can_be_restored(settings):
    low, high = settings.get("value_range", (0, 255))
    values = raster(3, low=low, high=high)
    processor = CrossEarthSARImageProcessor(**settings)
    back = restored_raster(processor(values)["pixel_values"], processor)
    torch.testing.assert_close(back[0], torch.from_numpy(values), atol=1e-4 * (high - low), rtol=0)


def test_bands_are_chosen_and_counted_from_one():
    values = raster(13)
    processor = CrossEarthSARImageProcessor(bands=[13])
    assert torch.equal(processor(values)["pixel_values"], CrossEarthSARImageProcessor()(values[12])["pixel_values"])
    three = CrossEarthSARImageProcessor()(values, bands=[2, 1, 2])["pixel_values"]
    assert torch.equal(three, CrossEarthSARImageProcessor()(values[[1, 0, 1]])["pixel_values"])
    with pytest.raises(InputError, match="13 bands and none are chosen"):
        CrossEarthSARImageProcessor()(values)
    with pytest.raises(InputError, match="no band 14 in a raster of 13"):
        CrossEarthSARImageProcessor()(values, bands=[14])


@pytest.mark.parametrize("nodata", [None, 0.0, -9999.0, float("nan")])
def test_what_was_not_measured_is_masked_and_becomes_the_mean(nodata):
    values = raster(low=1.0)
    values[3, 4] = np.nan if nodata is None else nodata
    values[5, 6] = np.inf
    batch = CrossEarthSARImageProcessor(nodata=nodata)(values)
    assert (~batch["valid"][0]).nonzero().tolist() == [[3, 4], [5, 6]]
    assert not batch["pixel_values"][0, :, ~batch["valid"][0]].any()
    assert torch.isfinite(batch["pixel_values"]).all()
    values[5, 6] = 9
    assert (~CrossEarthSARImageProcessor()(values, nodata=nodata)["valid"][0]).nonzero().tolist() == [[3, 4]]


def test_nothing_valid_is_a_stated_answer():
    batch = CrossEarthSARImageProcessor(nodata=0.0)(np.zeros((64, 64), np.float32))
    assert not batch["valid"].any()
    model = CrossEarthSARModel(CrossEarthSARConfig(hidden_size=48, num_hidden_layers=1, image_size=64)).eval()
    assert model(**batch).descriptors.tolist() == [[0.0, pytest.approx(np.log(2)), 0.0]]


def test_power_amplitude_and_decibels_are_converted_when_named():
    power = raster(low=0.01, high=1.0)
    processor = CrossEarthSARImageProcessor(**AMPLITUDE)
    expected = processor(np.sqrt(power))["pixel_values"]
    torch.testing.assert_close(processor(power, domain="intensity")["pixel_values"], expected)
    decibels = 10 * np.log10(power)
    torch.testing.assert_close(processor(decibels, domain="db")["pixel_values"], expected, atol=1e-5, rtol=1e-5)
    power[0, 0] = 0
    batch = CrossEarthSARImageProcessor(**DB)(power, domain="intensity")
    assert (~batch["valid"]).nonzero().tolist() == [[0, 0, 0]]  # no power has no decibels


def test_decibels_given_to_an_amplitude_model_are_refused():
    with pytest.raises(InputError, match=r"domain amplitude, but .* negative.*say domain db"):
        CrossEarthSARImageProcessor(**AMPLITUDE)(raster(low=-25, high=0))
    with pytest.raises(InputError, match="not 0 to 255"):
        CrossEarthSARImageProcessor()(raster(high=4000))


def test_sizes_stay_unless_a_centre_is_asked_for():
    values = raster(height=21, width=30)
    assert CrossEarthSARImageProcessor(image_size=16)(values)["pixel_values"].shape == (1, 3, 21, 30)
    cut = CrossEarthSARImageProcessor(image_size=16, fit="center_crop")
    expected = CrossEarthSARImageProcessor()(values[2:18, 7:23])["pixel_values"]
    assert torch.equal(cut(values)["pixel_values"], expected)
    with pytest.raises(InputError, match="has no centre of 16 px"):
        cut(values[:15])
    with pytest.raises(InputError, match="rasters of 2 sizes"):
        CrossEarthSARImageProcessor()([values, values[:8]])


def test_pictures_tensors_and_arrays_are_alike():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    processor = CrossEarthSARImageProcessor()
    expected = processor(np.moveaxis(pixels, -1, 0))["pixel_values"]
    assert torch.equal(processor(Image.fromarray(pixels))["pixel_values"], expected)
    assert torch.equal(processor(torch.from_numpy(pixels).permute(2, 0, 1))["pixel_values"], expected)
    grey = processor([Image.fromarray(pixels[:, :, 0]), pixels[:, :, 0].astype(np.uint16)])["pixel_values"]
    assert torch.equal(grey[0], grey[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CrossEarthSARImageProcessor()(np.ones((8, 8), np.complex64)), "complex"),
        (lambda: CrossEarthSARImageProcessor()(torch.ones(8, 8, dtype=torch.complex64)), "complex"),
        (lambda: CrossEarthSARImageProcessor()(np.zeros((8, 8)), domain="db"), "db cannot be converted"),
        (lambda: CrossEarthSARImageProcessor()(np.zeros((8, 8)), domain="dB"), "unknown domain"),
        (lambda: CrossEarthSARImageProcessor()(np.zeros((0, 8))), r"\(0, 8\)"),
        (lambda: CrossEarthSARImageProcessor()(np.zeros((2, 1, 8, 8))), r"\(2, 1, 8, 8\)"),
        (lambda: CrossEarthSARImageProcessor()(np.array([["a"]])), "expected numbers"),
        (lambda: CrossEarthSARImageProcessor()("scene.tif"), "got str"),
        (lambda: CrossEarthSARImageProcessor()([]), "no images"),
        (lambda: CrossEarthSARImageProcessor(bands=[0]), "counted from 1"),
        (lambda: CrossEarthSARImageProcessor(bands=[1, 2]), "one or three"),
        (lambda: CrossEarthSARImageProcessor(fit="centre_crop"), "Did you mean 'center_crop'"),
        (lambda: CrossEarthSARImageProcessor(domain="sigma0"), "domain is 'sigma0'"),
        (lambda: CrossEarthSARImageProcessor(value_range=(1, 1)), "value_range"),
        (lambda: CrossEarthSARImageProcessor(image_size=0), "image_size is 0"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_everything_that_decides_is_saved_and_comes_back(tmp_path):
    register_families()
    config = CrossEarthSARConfig(hidden_size=48, num_hidden_layers=1, image_size=64, image_mean=[0.4] * 3, **DB)
    made = CrossEarthSARImageProcessor.for_config(config)
    made.bands, made.nodata = [2], -9999.0
    save_model(CrossEarthSARModel(config), tmp_path / "model", processor=made)
    loaded = AutoImageProcessor.from_pretrained(tmp_path / "model")
    assert isinstance(loaded, CrossEarthSARImageProcessor)
    for name in ("image_size", "domain", "value_range", "bands", "nodata", "fit", "image_mean", "image_std"):
        assert getattr(loaded, name) == getattr(made, name), name
    assert (loaded.domain, loaded.value_range, loaded.image_size) == ("db", [-25.0, 0.0], 64)
    values = raster(2, low=-25, high=0)
    assert torch.equal(loaded(values)["pixel_values"], made(values)["pixel_values"])

"""Pseudo-labels: votes in closed form, and the command over our models and transformers' ones."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import rasterio
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessorPil

from geospatial.class_masks import IGNORE
from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.family import TINY
from geospatial.crossearth_sar.pseudo_label import SETTINGS_FILE, main, most_lost, remapped, vote
from geospatial.crossearth_sar.segmentation_model import CrossEarthSARForSegmentation
from mmzoo.errors import InputError
from mmzoo.hub.save import save_model


def members(*pixel_scores) -> list[np.ndarray]:
    """Each member's probabilities of one pixel."""
    return [np.array(scores, np.float32).reshape(-1, 1, 1) for scores in pixel_scores]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([(0.5, 0.3, 0.2)], (0, 50, 100)),
        ([(0.9, 0.1, 0.0), (0.4, 0.6, 0.0), (0.5, 0.1, 0.4)], (0, 60, 66)),  # mean 0.6; two of three agree
        ([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.3, 0.4, 0.3)], (1, 46, 66)),
        ([(0.4, 0.6), (0.4, 0.6), (0.9, 0.1)], (0, 56, 33)),  # one sure member outweighs two unsure ones
    ],
)
def test_votes_in_closed_form(scores, expected):
    assert tuple(int(part[0, 0]) for part in vote(members(*scores))) == expected


def test_classes_that_become_one_are_added_up():
    found = remapped(members((0.5, 0.2, 0.3))[0], {1: 0, 2: 0}, 2)
    assert found[:, 0, 0].tolist() == pytest.approx([0.5, 0.0])
    assert remapped(members((0.5, 0.2, 0.3))[0], {0: 1, 2: 0}, 2)[:, 0, 0].tolist() == pytest.approx([0.3, 0.5])
    assert most_lost(members((0.5, 0.2, 0.3))[0], {1: 0, 2: 0})[0, 0] == pytest.approx(0.5)
    assert most_lost(members((0.5, 0.2, 0.3))[0], None)[0, 0] == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory, raster_at):
    """Two pictures, our model and a Segformer with random weights, three classes each."""
    root = tmp_path_factory.mktemp("pseudo")
    random = np.random.default_rng(0)
    for name in "ab":
        values = random.integers(1, 255, (3, 40, 48)).astype(np.uint8)
        values[:, :4] = 0
        raster_at(root / "pictures" / f"{name}.tif", values, "display8", nodata=0)
    (root / "tokenizer").mkdir()
    (root / "tokenizer" / "config.json").write_text('{"model_type": "evotok"}')
    torch.manual_seed(0)
    config = CrossEarthSARConfig(**{**TINY, "class_names": ["land", "water", "ice"], "head": "linear"})
    save_model(CrossEarthSARForSegmentation(config), root / "ours")
    sizes = {"hidden_sizes": [8, 8], "depths": [1, 1], "num_encoder_blocks": 2, "decoder_hidden_size": 8}
    lists = {
        "sr_ratios": [2, 1],
        "patch_sizes": [3, 3],
        "strides": [2, 2],
        "num_attention_heads": [1, 1],
        "mlp_ratios": [2, 2],
    }
    segformer = SegformerForSemanticSegmentation(SegformerConfig(**sizes, **lists, num_labels=3))
    segformer.save_pretrained(root / "theirs")
    SegformerImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(root / "theirs")
    return root


def run(folder, out, *options: str) -> int:
    return main([str(folder / "pictures"), "-o", str(out), *options], "mmzoo pseudo-label")


def bands_of(path) -> np.ndarray:
    with rasterio.open(path) as file:
        assert str(file.crs) == "EPSG:32633"
        assert file.nodata == IGNORE
        return file.read(1)


def test_several_models_and_flips_vote(folder, tmp_path, capsys):
    models = ("--model", str(folder / "ours"), "--model", str(folder / "theirs"))
    assert run(folder, tmp_path / "out", *models, "--flips", "2", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rasters"], summary["voters"]) == (2, 4)
    labels, confidence, agreement = (
        bands_of(tmp_path / f"out/{k}/a.tif") for k in ("labels", "confidence", "agreement")
    )
    for part in (labels, confidence, agreement):
        assert (part[:4] == IGNORE).all()
    assert labels[4:].max() < 3
    assert confidence[4:].min() >= 33
    assert set(np.unique(agreement[4:])) <= {0, 25, 50, 75, 100}
    assert summary["unlabelled_share"] == pytest.approx(4 / 40)
    assert sum(summary["pixels_by_class"].values()) == 2 * 36 * 48


def test_one_voter_is_the_model_itself(folder, tmp_path):
    assert run(folder, tmp_path / "out", "--model", str(folder / "ours")) == 0
    model = CrossEarthSARForSegmentation.from_pretrained(folder / "ours", quiet=True).eval()
    from geospatial.crossearth_sar.processing import CrossEarthSARImageProcessor

    with rasterio.open(folder / "pictures" / "a.tif") as file:
        inputs = CrossEarthSARImageProcessor.for_config(model.config)(file.read(), nodata=0)
    expected = model.segment(inputs["pixel_values"], valid=inputs["valid"])[0]
    np.testing.assert_array_equal(bands_of(tmp_path / "out/labels/a.tif")[4:], expected.argmax(0).numpy()[4:])
    assert (bands_of(tmp_path / "out/agreement/a.tif")[4:] == 100).all()


def test_doubtful_pixels_are_left_out_and_a_second_run_goes_on(folder, tmp_path, capsys):
    options = ("--model", str(folder / "ours"), "--min-confidence", "0.5")
    assert run(folder, tmp_path / "out", *options) == 0
    labels, confidence = (bands_of(tmp_path / f"out/{kind}/b.tif") for kind in ("labels", "confidence"))
    np.testing.assert_array_equal(labels[4:] == IGNORE, confidence[4:] < 50)
    (tmp_path / "out/labels/a.tif").unlink()
    before = (tmp_path / "out/labels/b.tif").stat().st_mtime_ns
    capsys.readouterr()
    assert run(folder, tmp_path / "out", *options) == 0
    assert "1 rasters labelled by 1 voters, 1 kept" in capsys.readouterr().out
    assert (tmp_path / "out/labels/b.tif").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="begun with another"):
        run(folder, tmp_path / "out", "--model", str(folder / "ours"))


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000])
def test_a_damaged_note_of_the_settings_is_one_line(folder, tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / SETTINGS_FILE).write_text(text)
    with pytest.raises(InputError, match="cannot be read"):
        run(folder, tmp_path / "out", "--model", str(folder / "ours"))


def test_settings_that_labelled_nothing_bind_nobody(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / SETTINGS_FILE).write_text('{"flips": 9}')
    assert run(folder, tmp_path / "out", "--model", str(folder / "ours")) == 0
    with pytest.raises(InputError, match="begun with another flips: 1 there, 2 now"):
        run(folder, tmp_path / "out", "--model", str(folder / "ours"), "--flips", "2")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--model", "{f}/none"], "there is no model folder"),
        (["--model", "{f}/tokenizer"], r"tokenizer is evotok \(.*\)\. Give a segmentation model"),
        (["--model", "{f}/ours", "--domain", "db"], "holds db values"),
        (["--model", "{f}/theirs", "--domain", "db"], "sees 8-bit pictures"),
        (["--model", "{f}/ours", "--min-confidence", "50"], "must be in 0 to 1"),
        (["--model", "{f}/ours", "--remap", "3"], "--remap must be like"),
        (["--model", "{f}/ours", "--remap", '{"7": 0}'], "classes 0 to 2"),
        (["--model", "{f}/ours", "--remap", '{"1": 0.5}'], "--remap must be like"),
        (["--model", "{f}/ours", "--remap", "[" * 100_000], "--remap must be like"),
        (["--model", "{f}/ours", "--remap", '{"1": 1' + "0" * 40 + "}"], "leads to classes 0 to 254"),
        (["--model", "{f}/ours", "--bands", "1", "2"], "takes 1 or 3 bands"),
    ],
)
def test_mistakes_are_one_line_each(folder, tmp_path, options, reason):
    with pytest.raises(InputError, match=reason):
        run(folder, tmp_path / "out", *(option.replace("{f}", str(folder)) for option in options))
    assert not list(tmp_path.rglob("*.tif"))


def test_other_weights_or_pictures_of_the_same_names_are_refused(folder, tmp_path):
    model, pictures = tmp_path / "model", tmp_path / "pictures"
    shutil.copytree(folder / "ours", model)
    shutil.copytree(folder / "pictures", pictures)
    command = [str(pictures), "-o", str(tmp_path / "out"), "--model", str(model)]
    assert main(command, "mmzoo pseudo-label") == 0
    torch.manual_seed(1)
    config = CrossEarthSARConfig(**{**TINY, "class_names": ["land", "water", "ice"], "head": "linear"})
    shutil.rmtree(model)
    save_model(CrossEarthSARForSegmentation(config), model)
    with pytest.raises(InputError, match="begun with another weights"):
        main(command, "mmzoo pseudo-label")
    shutil.rmtree(model)
    shutil.copytree(folder / "ours", model)
    shutil.copy(pictures / "b.tif", pictures / "a.tif")
    with pytest.raises(InputError, match="begun with another pictures"):
        main(command, "mmzoo pseudo-label")


@pytest.mark.parametrize("device", ["banana", "meta", "cuda:7"])
def test_a_device_that_is_not_there_is_named(folder, tmp_path, device):
    with pytest.raises(InputError, match=f"--device {device} cannot be used here"):
        run(folder, tmp_path / "out", "--model", str(folder / "ours"), "--device", device)


def test_the_output_is_not_among_the_pictures(folder):
    with pytest.raises(InputError, match="would be labelled itself"):
        run(folder, folder / "pictures" / "out", "--model", str(folder / "ours"))


def test_a_model_that_gives_nan_labels_nothing(folder, tmp_path):
    config = CrossEarthSARConfig(**{**TINY, "class_names": ["land", "water", "ice"], "head": "linear"})
    model = CrossEarthSARForSegmentation(config)
    with torch.no_grad():
        next(model.head.parameters()).fill_(torch.nan)
    save_model(model, tmp_path / "diverged")
    with pytest.raises(InputError, match="no finite probabilities"):
        run(folder, tmp_path / "out", "--model", str(tmp_path / "diverged"))
    assert not list((tmp_path / "out").rglob("*.tif"))

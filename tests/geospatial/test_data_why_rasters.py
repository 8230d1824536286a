"""`mmzoo data why` of a training on rasters: the files and windows that a step read, checked against its batch."""

import json

import numpy as np
import pytest
import rasterio
import yaml
from PIL import Image
from rasterio.windows import Window

from geospatial.raster_data import RasterData
from geospatial.raster_sources import RasterSource
from geospatial.window_transform import Augmentation
from mmzoo.cli import main
from mmzoo.training.step_picture import stretched

AS_IT_IS = {"scale_min": 1.0, "scale_max": 1.0, "flip_horizontal": 0.0}
OPTIONS = {"classes": {0: "land", 1: "water"}, "window": 32, "global_batch": 4, "val_fraction": 0.0, "seed": 5}


def write_config(folder):
    module = {
        "class_path": "geospatial.crossearth_sar.training.CrossEarthSARSegmentation",
        "init_args": {
            "classes": OPTIONS["classes"],
            "head": "fpn",
            "head_settings": {"width": 8},
            "overrides": {
                **{"domain": "amplitude", "value_range": [0, 2]},
                **{"num_hidden_layers": 1, "hidden_size": 32, "mlp_ratio": 2},
            },
        },
    }
    source = {"images": "scenes/images", "masks": "scenes/masks", "name": "scenes"}
    options = {**OPTIONS, "sources": [source], "augmentation": AS_IT_IS, "steps_per_epoch": 2}
    data = {"class_path": "geospatial.raster_data.RasterData", "init_args": options}
    trainer = {"accelerator": "cpu", "max_steps": 2, "log_every_n_steps": 1}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"trainer": trainer, "model": module, "data": data}))
    return file


@pytest.fixture(scope="module")
def place(tmp_path_factory, raster_at):
    """A folder with three scenes and a run that was trained there, with relative paths."""
    root = tmp_path_factory.mktemp("place")
    for number in range(3):
        random = np.random.default_rng(number)
        mask = random.integers(0, 2, (1, 40, 48 + number)).astype(np.uint8)
        values = random.random(mask.shape, np.float32)
        raster_at(root / "scenes" / "images" / f"{number}.tif", values)
        raster_at(root / "scenes" / "masks" / f"{number}.tif", mask, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["fit", "-c", str(write_config(root)), "--run", "run"]) == 0
    return root


def batch_of_step(place, number):
    sources = [RasterSource(str(place / "scenes/images"), str(place / "scenes/masks"), "scenes")]
    given = RasterData(sources, augmentation=Augmentation(**AS_IT_IS), **OPTIONS)
    batches = iter(given.train_dataloader().make())
    return [next(batches) for _ in range(number)][-1]


def test_every_window_is_the_one_that_was_trained_on(place, capsys):
    capsys.readouterr()
    assert main(["data", "why", str(place / "run"), "--step", "2", "--json"]) == 0
    samples = json.loads(capsys.readouterr().out)["samples"]
    batch = batch_of_step(place, 2)
    assert [sample["sample_id"] for sample in samples] == list(batch["sample_ids"])
    assert len({tuple(sample["window"]) for sample in samples}) > 1
    for sample, image in zip(samples, batch["image"], strict=True):
        top, left, height, width = sample["window"]
        with rasterio.open(sample["path"]) as file:
            stored = file.read(window=Window(left, top, width, height))
        assert np.array_equal(stored, image.numpy())
        assert (sample["shard"], sample["source"], sample["offset"]) == (f"{sample['key']}.tif", "scenes", 0)


def test_the_table_and_the_picture(place, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = place / "run" / "checkpoints" / "last"
    assert main(["data", "why", str(checkpoint.resolve()), "--step", "1", "--png", "step.png"]) == 0
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == ["position", "epoch", "batch", "slot", "rank", "place", "source", "key", "window", "path"]
    assert first.split()[8].count(",") == 3
    with Image.open(tmp_path / "step.png") as sheet:
        assert sheet.size == (4 * 128, 142)
        assert len(np.unique(np.asarray(sheet)[:126, :126].reshape(-1, 3), axis=0)) > 50


def test_changed_files_are_said_to_be_others(place, capsys, raster_at):
    file = place / "scenes" / "images" / "2.tif"
    before = file.read_bytes()
    raster_at(file, np.ones((1, 40, 50), np.float32))
    try:
        assert main(["data", "why", str(place / "run"), "--step", "1"]) == 2
        assert "are not those of this step, or were changed since" in capsys.readouterr().err
    finally:
        file.write_bytes(before)


def test_bands_are_stretched_over_what_is_valid():
    bands = np.linspace(-30, 0, 400).reshape(1, 20, 20)
    valid = np.ones((20, 20), bool)
    valid[0] = False
    bands[0, 0] = 1e9  # would leave all the others black
    picture = stretched(bands, valid)
    assert picture.shape == (20, 20, 3)
    assert (picture[0] == 0).all()
    assert (picture[1, 0], picture[19, 19]) == (pytest.approx(0), pytest.approx(255))
    assert abs(int(picture[10, 10, 0]) - 128) < 4
    several = stretched(np.stack([bands[0], -bands[0], bands[0], bands[0]]), valid)
    assert several[5, 5, 0] == picture[5, 5, 0] == 255 - several[5, 5, 1]
    assert not stretched(bands, np.zeros((20, 20), bool)).any()

"""The segmentation suite end to end on rasters of known truth: whole, resumed, from lists and folders, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch

from eval_suites.evaluation import Evaluation
from eval_suites.record import ModelStamp
from eval_suites.request import EvalRequest
from eval_suites.sar_segmentation.class_maps import MapMaker
from eval_suites.sar_segmentation.evaluate import evaluate
from eval_suites.sar_segmentation.options import read_bands, read_count, read_share
from eval_suites.sar_segmentation.rasters import open_rasters
from eval_suites.sar_segmentation.suite import suite
from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.family import TINY
from geospatial.crossearth_sar.segmentation_model import CrossEarthSARForSegmentation
from geospatial.raster import Raster, RasterSettings
from mmzoo import cli
from mmzoo.errors import InputError
from mmzoo.hub.save import save_model

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
SIZES = ((16, 16), (40, 24), (10, 37))
STAMP = ModelStamp("bright", "crossearth_sar", None, None, {"config.json": "0" * 64}, "not recorded", 1, 1, ())


class Bright:
    """Class 1 where the input is above the mean of the normalisation: right wherever the raster is above 127.5."""

    config = SimpleNamespace(
        **{name: getattr(CrossEarthSARConfig(**TINY), name) for name in ("model_type", "domain", "value_range")},
        image_size=16,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        class_names=["dark", "bright"],
    )

    def __init__(self) -> None:
        self.windows = 0

    def segment(self, pixel_values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        assert valid.shape == (len(pixel_values), 16, 16)
        self.windows += len(pixel_values)
        bright = (pixel_values[:, 0] > 0).float()
        return torch.stack([1 - bright, bright], 1)


def write(file: Path, values: np.ndarray, nodata: float | None = None, **tags: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    bands = values if values.ndim == 3 else values[None]
    size = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    with rasterio.open(file, "w", driver="GTiff", dtype=bands.dtype, nodata=nodata, **size) as out:
        out.write(bands)
        out.update_tags(**tags)


class Measured(Bright):
    """Class 1 where the window is said to hold data, and only there."""

    def segment(self, pixel_values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        assert not pixel_values[~valid[:, None].expand_as(pixel_values)].any()  # 0 to the network: the mean
        self.windows += int(valid.sum())
        return torch.stack([(~valid).float(), valid.float()], 1)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """image/ and mask/: three rasters; the mask of the second is wrong in its first column."""
    for number, size in enumerate(SIZES):
        values = np.random.default_rng(number).integers(0, 256, size).astype(np.uint8)
        mask = (values > 127).astype(np.uint8)
        if number == 1:
            mask[:, 0] = 1 - mask[:, 0]
        write(tmp_path / "scenes" / "image" / f"s{number}.tif", values)
        write(tmp_path / "scenes" / "mask" / f"s{number}.tif", mask)
    return tmp_path / "scenes"


def run(data: Path, out: Path, *, limit: int | None = None, split: str = "val", **options: object):
    out.mkdir(exist_ok=True)
    evaluation = Evaluation(suite, STAMP, out)
    model = Bright()
    given = {"domain": "display8", **options}
    try:
        metrics = evaluate(EvalRequest(model, data, split, "cpu", limit, given, evaluation.open_log))
    finally:
        if evaluation.log is not None:
            evaluation.log.close()
    return {metric.name: metric for metric in metrics}, model


def test_a_folder_is_measured_with_known_figures(scenes: Path, tmp_path: Path) -> None:
    found, model = run(scenes, tmp_path / "out")
    total, wrong = sum(h * w for h, w in SIZES), SIZES[1][0]
    assert found["oa"].value == pytest.approx(1 - wrong / total)
    assert 0.9 < found["boundary_miou"].value < 1
    assert found["image_miou"].n_values == 3
    assert model.windows == 1 + 3 * 2 + 1 * 3
    matrix = json.loads((tmp_path / "out" / "confusion.json").read_text())["target"]
    assert np.sum(matrix) == total
    assert {name.partition("@")[0] for name in found} <= set(suite.metrics)


@pytest.mark.parametrize("size", [(1, 1), (15, 17), (16, 48), (33, 16)])
def test_every_pixel_has_its_own_class(size: tuple[int, int], tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 256, size).astype(np.uint8)
    write(tmp_path / "a.tif", values)
    with Raster(tmp_path / "a.tif", RasterSettings(domain="display8")) as raster:
        found = [MapMaker(Bright(), 16, batch, "cpu").classes(raster.read(), "display8") for batch in (1, 5)]
    np.testing.assert_array_equal(found[0], values > 127)
    np.testing.assert_array_equal(found[0], found[1])


def test_pixels_without_data_and_beyond_the_raster_are_no_measurements(tmp_path: Path) -> None:
    """As values they would be 0: black water at the rim of every scene."""
    values = np.random.default_rng(2).integers(1, 256, (21, 19)).astype(np.uint8)
    values[3:9, 10:] = 0
    write(tmp_path / "a.tif", values, nodata=0)
    model = Measured()
    with Raster(tmp_path / "a.tif", RasterSettings(domain="display8")) as raster:
        found = MapMaker(model, 16, 3, "cpu").classes(raster.read(), "display8")
    np.testing.assert_array_equal(found, values > 0)
    small = Measured()
    with Raster(tmp_path / "a.tif", RasterSettings(domain="display8")) as raster:
        MapMaker(small, 64, 1, "cpu").classes(raster.read(), "display8")
    assert small.windows == (values > 0).sum()


def test_the_window_and_the_bands_are_those_asked_for(tmp_path: Path) -> None:
    assert MapMaker.of(Bright(), 8, 1, "cpu").window == 8
    assert MapMaker.of(Bright(), None, 1, "cpu").window == Bright.config.image_size
    dark, bright = np.zeros((16, 16), np.uint8), np.full((16, 16), 255, np.uint8)
    write(tmp_path / "s" / "image" / "a.tif", np.stack([dark, bright]))
    write(tmp_path / "s" / "mask" / "a.tif", np.ones((16, 16), np.uint8))
    assert run(tmp_path / "s", tmp_path / "two", bands=(2,))[0]["oa"].value == 1.0
    assert run(tmp_path / "s", tmp_path / "one", bands=(1,))[0]["oa"].value == 0.0
    for reader, wrong in ((read_bands, "1,0"), (read_share, "0"), (read_share, "1.1"), (read_count, "0")):
        with pytest.raises(InputError, match="give"):
            reader(wrong)


def test_what_a_set_is_follows_from_names_rasters_masks_and_groups(scenes: Path, tmp_path: Path) -> None:
    def identity(group: str | None = None) -> str:
        return open_rasters(scenes, "val", group, None).identity

    found = [identity(), identity("(s)")]
    assert open_rasters(scenes, "val", None, 1).identity not in found
    write(scenes / "mask" / "s1.tif", np.zeros(SIZES[1], np.uint8))  # a mask that was mended is another set
    found.append(identity())
    write(scenes / "image" / "s1.tif", np.zeros(SIZES[1], np.uint8))
    found.append(identity())
    for kind in ("image", "mask"):
        (scenes / kind / "s0.tif").rename(scenes / kind / "s9.tif")
    found.append(identity())
    assert len(set(found)) == len(found)
    one = open_rasters(scenes, "val", None, 1)
    assert (len(one.items), one.split) == (1, None)
    listed = tmp_path / "list.csv"
    listed.write_text("image,mask,split\nscenes/image/s1.tif,scenes/mask/s1.tif,val\n")
    assert open_rasters(listed, "val", None, None).split == "val"


def test_another_evaluation_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    """Whatever could change a number is part of what an evaluation is."""
    values = np.random.default_rng(0).integers(0, 2, (16, 16)).astype(np.uint8)
    for name in ("a", "b"):
        for place in ("s", "source", "other"):
            write(tmp_path / place / "image" / f"{name}.tif", 255 * values, domain="display8")
            write(tmp_path / place / "mask" / f"{name}.tif", values if place != "other" else 1 - values)
    table = tmp_path / "classes.json"
    table.write_text('{"1": "dark", "0": "bright"}')
    first = {"domain": None, "source": tmp_path / "source"}
    run(tmp_path / "s", tmp_path / "out", **first)
    for change in (
        *({"window": 16 + 1}, {"ignore": [255, 7]}, {"domain": "display8"}, {"bands": (1,)}, {"boundary": 0.5}),
        *({"limit": 1}, {"classes": table}, {"source": None}, {"source": tmp_path / "other"}),
    ):
        with pytest.raises(InputError, match="other settings"):
            run(tmp_path / "s", tmp_path / "out", **{**first, **change})
    with pytest.raises(InputError, match="other settings"):
        run(tmp_path / "other", tmp_path / "out", **first)
    run(tmp_path / "s", tmp_path / "out", **{**first, "batch": 1})  # no setting: it changes no map


def test_a_killed_evaluation_goes_on(scenes: Path, tmp_path: Path) -> None:
    whole, _ = run(scenes, tmp_path / "whole")
    run(scenes, tmp_path / "cut")
    log = tmp_path / "cut" / "samples.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    resumed, model = run(scenes, tmp_path / "cut")
    assert resumed == whole
    assert model.windows == 6 + 3
    assert log.read_bytes() == (tmp_path / "whole" / "samples.jsonl").read_bytes()
    with pytest.raises(InputError, match="other settings"):
        run(scenes, tmp_path / "cut", boundary=0.1)


def test_lists_with_splits_groups_and_a_source(scenes: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    rows = "".join(f"scenes/image/s{n}.tif,scenes/mask/s{n}.tif,{'val' if n else 'train'},g\n" for n in range(3))
    listed.write_text("image,mask,split,group\n" + rows)
    found, _ = run(listed, tmp_path / "val")
    assert (found["miou"].n_values, found["miou"].n_groups, found["miou"].low) == (2, 1, None)
    every, _ = run(listed, tmp_path / "all", split="all", source=scenes)
    assert every["miou"].n_values == 3
    assert every["miou_drop"].value == 0.0
    assert every["miou@source"].n_groups == 3
    with pytest.raises(InputError, match="no raster of the split 'test'"):
        run(listed, tmp_path / "none", split="test")


def test_what_does_not_fit_is_refused(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    with pytest.raises(InputError, match="has no folder mask"):
        run(tmp_path, tmp_path / "a")
    other = tmp_path / "other.json"
    other.write_text('{"0": "sea", "1": "land"}')
    with pytest.raises(InputError, match="Give --classes"):
        run(scenes, tmp_path / "b", classes=other)
    write(scenes / "mask" / "s0.tif", np.full(SIZES[0], 7, np.uint8))
    with pytest.raises(InputError, match="have the ids 7"):
        run(scenes, tmp_path / "c")
    run(scenes, tmp_path / "d", ignore=[7])
    with pytest.raises(InputError, match="converted"):
        run(scenes, tmp_path / "e", ignore=[7], domain="db")
    with pytest.raises(InputError, match="makes no class maps"):
        MapMaker.of(SimpleNamespace(config=SimpleNamespace(model_type="evotok")), 16, 1, "cpu")


def test_the_command_measures_a_saved_model(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    config = CrossEarthSARConfig(**TINY, class_names=["dark", "bright"], head="linear")
    save_model(CrossEarthSARForSegmentation(config).eval(), tmp_path / "model")
    line = ["eval", "run", "sar_segmentation", "--model", str(tmp_path / "model"), "--data", str(scenes)]
    assert cli.main([*line, "--out", str(tmp_path / "out"), "--domain", "display8", "--device", "cpu", "--all"]) == 0
    shown = capsys.readouterr().out
    assert "miou " in shown
    assert "boundary_iou@bright" in shown
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["data"]["n"] == 3

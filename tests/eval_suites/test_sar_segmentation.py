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


def write(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        file, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1, dtype=values.dtype
    ) as out:
        out.write(values, 1)


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

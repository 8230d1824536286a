"""The radar study's parts: its rasters, the best threshold by search, its figures in closed form, and the grid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from eval_suites.studies import crossearth_sar_small_results as results
from eval_suites.studies.brightness_threshold import Threshold, best_threshold, smoothed
from eval_suites.studies.crossearth_sar_small import ARMS, START, Experiment, Study
from eval_suites.studies.crossearth_sar_small_data import bands_of, write_lists
from eval_suites.studies.crossearth_sar_small_measure import cut, joined, measure_threshold, pictures
from eval_suites.studies.grid import DONE
from geospatial.confusion import class_ious, confusion_matrix
from mmzoo.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
WATER = Experiment("water", "crossearth_sar/tiny-water", "near", ("far",))


def write_picture(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape[-2:]
    with rasterio.open(file, "w", driver="PNG", count=len(values), height=height, width=width, dtype="uint8") as opened:
        opened.write(values)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Water is below 60 near, below 100 far; one pair of pictures before and after a flood."""
    random, rows = np.random.default_rng(0), []
    for domain, level in (("near", 60), ("far", 100)):
        for number in range(4):
            mask = np.kron(random.permutation([0, 0, 1, 1]).reshape(2, 2), np.ones((32, 32), int)).astype(np.uint8)
            values = np.where(mask == 1, level - 30, level + 30)[None].repeat(3 if domain == "far" else 1, 0)
            name = f"{domain}_{number}"
            write_picture(tmp_path / "data" / f"{name}.png", values.astype(np.uint8))
            write_picture(tmp_path / "data" / f"{name}_mask.png", mask[None])
            split = "val" if number == 3 else "train"
            row = {"id": name, "task": "water", "image": f"{name}.png", "label": f"{name}_mask.png"}
            rows.append({**row, "domain": domain, "split": split})
    write_picture(tmp_path / "data" / "before.png", np.full((1, 64, 64), 200, np.uint8))
    flood = {"id": "f", "task": "flood", "image": "near_0.png", "image_before": "before.png"}
    rows += [{**flood, "label": "near_0_mask.png", "domain": "flooded", "split": "train"}]
    rows += [{**rows[0], "id": "other", "task": "landcover"}]
    (tmp_path / "data" / "annotations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data"


def test_rasters_hold_what_the_pictures_say(data: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    write_lists(data, tmp_path / "lists")
    assert {file.stem for file in (tmp_path / "lists").glob("*.csv")} == {"near", "far", "flooded"}
    (flooded,) = pictures(tmp_path / "lists", "flooded", None)
    before, after, change = flooded.bands
    np.testing.assert_array_equal(change, 128 + (after - before) / 2)
    assert float(before.mean()) == 200
    assert [one.name for one in pictures(tmp_path / "lists", "near", "val")] == ["near_3"]
    (data / "before.png").unlink()
    with pytest.raises(InputError, match="cannot be read as a picture"):
        write_lists(data, tmp_path / "lists")
    write_picture(data / "before.png", np.zeros((1, 8, 8), np.uint8))
    record = {"id": "f", "image": "near_0.png", "image_before": "before.png"}
    with pytest.raises(InputError, match="before and after"):
        bands_of(record, data)


def test_the_best_threshold_is_the_best_of_all() -> None:
    random = np.random.default_rng(3)
    values = random.uniform(0, 255, (50, 40))
    labels = (values + random.normal(0, 60, values.shape) < 90).astype(np.uint8)
    labels[:4] = 255
    found = best_threshold([(values[:25], labels[:25]), (values[25:], labels[25:])])

    def score(level: int, dark: bool) -> float:
        guess = Threshold(level, dark, 0.0).classes(values)
        return float(class_ious(confusion_matrix(labels, guess, 2)).mean())

    assert found.miou == pytest.approx(max(score(level, dark) for level in range(256) for dark in (True, False)))
    assert found.miou == pytest.approx(score(found.level, found.dark))
    assert found.dark
    assert not best_threshold([(255 - values, labels)]).dark
    with pytest.raises(ValueError, match="both classes"):
        best_threshold([(values, np.zeros_like(labels))])


def test_smoothing_is_the_mean_of_what_is_there() -> None:
    picture = np.random.default_rng(0).uniform(0, 255, (9, 12))
    wanted = [[picture[max(0, i - 3) : i + 4, max(0, j - 3) : j + 4].mean() for j in range(12)] for i in range(9)]
    np.testing.assert_allclose(smoothed(picture), wanted)


def test_windows_come_back_in_place() -> None:
    bands = np.arange(2 * 8 * 12, dtype=np.float32).reshape(2, 8, 12)
    windows = cut(bands, 4)
    assert windows.shape == (6, 2, 4, 4)
    np.testing.assert_array_equal(windows[1, 0], bands[0, :4, 4:8])
    np.testing.assert_array_equal(joined(windows[:, 1], (8, 12)), bands[1])
    with pytest.raises(ValueError, match="not made of"):
        cut(bands, 5)


def test_a_threshold_of_the_source_fails_on_the_target(data: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    write_lists(data, tmp_path / "lists")
    (tmp_path / "out").mkdir()
    measure_threshold(tmp_path / "lists", "near", ["far"], tmp_path / "out")
    names, near = results.counts(tmp_path / "out" / "images.jsonl", "near")
    _, far = results.counts(tmp_path / "out" / "images.jsonl", "far")
    assert names == ["near_3"]
    assert far.shape == (4, 2, 2)
    assert class_ious(near.sum(0)).mean() > 0.85 > 0.75 > class_ious(far.sum(0)).mean()


def test_the_grid_trains_every_arm_from_the_start_of_its_seed(data: Path) -> None:
    steps = Study(data, seeds=2, experiments=(WATER,)).grid()
    names = [step.name for step in steps]
    assert names[:3] == ["lists", "water/threshold", "water/seed0/start"]
    assert len(names) == 2 + 2 * (1 + 2 * len(ARMS))
    needs = {step.name: step.needs for step in steps}
    assert needs["water/seed1/dense"] == ("lists", "water/seed1/start")
    assert needs["water/seed1/adapter"] == ("lists", "water/seed1/physics_ste")
    assert START.overrides == {"num_experts": 1}


def fake_grid(folder: Path, gain: int) -> None:
    """Three images, two seeds: `dense` has 50 of 100 px of each class right, `experts` `gain` more, in every image."""
    for seed in range(2):
        for arm in ARMS:
            place = folder / "water" / f"seed{seed}" / f"{arm.name}_measured"
            place.mkdir(parents=True)
            right = 50 + seed + (gain if arm.name == "experts" else 0)
            _write_counts(place, right)
            (place / DONE).touch()
    (folder / "water" / "threshold").mkdir()
    _write_counts(folder / "water" / "threshold", 20)
    (folder / "water" / "threshold" / "threshold.json").write_text('{"level": 3}')


def _write_counts(place: Path, right: int) -> None:
    matrix = [[right, 100 - right], [100 - right, right]]
    rows = [{"domain": d, "image": f"{d}{n}", "matrix": matrix} for d in ("near", "far") for n in range(3)]
    (place / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_figures_in_closed_form(tmp_path: Path) -> None:
    fake_grid(tmp_path / "grid", 10)
    study = Study(tmp_path, seeds=3, experiments=(WATER,))
    summary = results.summarise(tmp_path / "grid", study)
    assert summary["seeds"] == 2
    arms = summary["domains"][1]["arms"]
    iou = [right / (200 - right) for right in (50, 51)]
    assert arms["dense"]["miou"].seeds == pytest.approx(iou)
    assert arms["dense"]["miou"].value == pytest.approx(np.mean(iou))
    assert arms["dense"]["miou"].low == pytest.approx(iou[0])
    gains = [right / (200 - right) - old for right, old in zip((60, 61), iou, strict=True)]
    assert arms["experts"]["difference"].value == pytest.approx(np.mean(gains))
    assert arms["experts"]["difference"].verdict() == "better"
    assert arms["balance"]["difference"].verdict() == "not told apart"
    assert arms["threshold"]["difference"].verdict() == "worse"
    results.write_results(tmp_path / "grid", study, tmp_path / "docs" / "small")
    table = (tmp_path / "docs" / "small_tables.md").read_text()
    assert "better (dense)" in table
    assert "(frozen)" in table
    assert (tmp_path / "docs" / "small.svg").stat().st_size > 5000
    assert json.loads((tmp_path / "docs" / "small.json").read_text())["thresholds"]["water"]["level"] == 3


def test_an_unfinished_grid_and_mixed_images_are_refused(tmp_path: Path) -> None:
    study = Study(tmp_path, experiments=(WATER,))
    with pytest.raises(ValueError, match="no seed"):
        results.finished_seeds(tmp_path, study)
    fake_grid(tmp_path / "grid", 0)
    file = tmp_path / "grid" / "water" / "seed1" / "dense_measured" / "images.jsonl"
    file.write_text(file.read_text().replace("far2", "far9"))
    with pytest.raises(ValueError, match="other images"):
        results.summarise(tmp_path / "grid", study)

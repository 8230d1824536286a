"""Segmentation records on a leaderboard: two models on two sets, from `mmzoo eval run` to the tables, and tampering."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from finished_evaluations import changed

from eval_suites.leaderboard.gathering import read_entry
from eval_suites.record import read_record
from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.family import TINY
from geospatial.crossearth_sar.segmentation_model import CrossEarthSARForSegmentation
from mmzoo import cli
from mmzoo.errors import InputError
from mmzoo.hub.save import save_model

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
MODELS = ("dark-0", "bright-1")  #: the class that each gives to every pixel, as its name says
SETS = {"coast": 0.8, "town": 0.4}  #: share of dark pixels
RASTERS = 8


def write(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    size = {"count": 1, "height": values.shape[0], "width": values.shape[1]}
    with rasterio.open(file, "w", driver="GTiff", dtype="uint8", **size) as out:
        out.write(values.astype(np.uint8), 1)
        out.update_tags(domain="display8")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders MODEL-SET with finished evaluations; the town's has the coast as its source."""
    root = tmp_path_factory.mktemp("leaderboard")
    for (name, dark), seed in zip(SETS.items(), (0, 1), strict=True):
        random = np.random.default_rng(seed)
        for number in range(RASTERS):
            mask = random.random((32, 32)) > dark
            write(root / name / "image" / f"r{number}.tif", 80 + 90 * mask)
            write(root / name / "mask" / f"r{number}.tif", mask)
    for model in MODELS:
        torch.manual_seed(0)
        config = CrossEarthSARConfig(**TINY, class_names=["dark", "bright"], head="linear")
        made = CrossEarthSARForSegmentation(config).eval()
        with torch.no_grad():
            made.head.classifier.weight.zero_()
            made.head.classifier.bias.copy_(torch.eye(2)[int(model[-1])])
        save_model(made, root / "models" / model)
        for name in SETS:
            line = ["eval", "run", "sar_segmentation", "--model", str(root / "models" / model), "--device", "cpu"]
            source = ["--source", str(root / "coast")] if name == "town" else []
            assert (
                cli.main([*line, "--data", str(root / name), *source, "--out", str(root / "evals" / f"{model}-{name}")])
                == 0
            )
    return root


@pytest.fixture
def board(measured: Path, tmp_path: Path) -> dict:
    assert cli.main(["leaderboard", "build", str(measured / "evals"), "--out", str(tmp_path / "board")]) == 0
    return json.loads((tmp_path / "board" / "leaderboard.json").read_text())


def test_ranks_intervals_and_drops_are_those_of_two_constant_models(measured: Path, board: dict) -> None:
    tables = {table["data"]["name"]: table for table in board["tables"]}
    assert {name: [row["model"] for row in table["rows"]] for name, table in tables.items()} == {
        "coast": ["dark-0", "bright-1"],
        "town": ["bright-1", "dark-0"],
    }
    shares = {}
    for name in SETS:
        masks = [rasterio.open(file).read(1) for file in sorted((measured / name / "mask").iterdir())]
        shares[name] = 1 - float(np.mean(masks))
    cells = {(name, row["model"]): row["cells"] for name, table in tables.items() for row in table["rows"]}
    for name, share in shares.items():
        for model, right in zip(MODELS, (share, 1 - share), strict=True):
            found = cells[name, model]
            assert found["oa"]["value"] == pytest.approx(right)
            assert found["miou"]["value"] == pytest.approx(right / 2)  # the other class is there and never found
            assert found["kappa"]["value"] == pytest.approx(0)
            assert found["oa"]["low"] < right < found["oa"]["high"]
            assert (found["miou"]["n_values"], found["miou"]["n_groups"]) == (RASTERS, RASTERS)
    lost = shares["coast"] - shares["town"]
    for model, drop in zip(MODELS, (lost, -lost), strict=True):
        cell = cells["town", model]["oa_drop"]
        assert cell["value"] == pytest.approx(drop)
        assert cell["low"] < drop < cell["high"]
        assert not cell["higher_is_better"]
        assert "oa_drop" not in cells["coast", model]


def test_the_record_says_how_the_experts_were_run(measured: Path) -> None:
    record = read_record(measured / "evals" / "dark-0-town" / "record.json")
    assert record.hardware["computed_with"] == {"experts": "loop"}  # what "auto" comes to on a processor


def test_models_are_told_apart_raster_by_raster_and_by_their_intervals(board: dict) -> None:
    for table in board["tables"]:
        columns = {column["name"]: column for column in table["columns"]}
        methods = {name: [one["method"] for one in column["comparisons"]] for name, column in columns.items()}
        assert methods["image_miou"] == ["paired bootstrap"]
        assert methods["miou"] == ["interval overlap"]
        for name in ("image_miou", "miou"):
            (one,) = columns[name]["comparisons"]
            assert one["told_apart"]
            best, other = (row["cells"][name]["tied"] for row in table["rows"])
            assert (best, other) == ("a", "b")


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("miou", {"value": 0.9}, "miou has value 0.9, and the rows"),
        ("miou", {"low": 0.0}, "miou has low 0.0, and"),
        ("kappa", {"value": 0.1}, "kappa has value 0.1"),
        ("boundary_iou@bright", {"high": 1.0}, "boundary_iou@bright has high 1.0"),
        ("miou_drop", {"value": -0.5}, "miou_drop has value -0.5"),
        ("oa", {"n_values": 7}, "oa has n_values 7"),
        ("image_miou", {"value": 0.9}, "image_miou is 0.9, but the mean of its rows"),
        ("iou@dark", {"name": "iou@sea"}, "does not list the metrics .* for example iou@dark"),
    ],
)
def test_a_number_that_was_made_nicer_is_refused(
    measured: Path, tmp_path: Path, name: str, changes: dict, words: str
) -> None:
    folder = measured / "evals" / "dark-0-town"
    for file in ("record.json", "samples.jsonl"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    read_entry(tmp_path / "record.json")
    metrics = [
        dataclasses.replace(metric, **changes) if metric.name == name else metric
        for metric in read_record(tmp_path / "record.json").metrics
    ]
    changed(tmp_path / "record.json", metrics=tuple(metrics))
    with pytest.raises(InputError, match=words):
        read_entry(tmp_path / "record.json")


def test_rows_that_the_suite_did_not_write_are_refused(measured: Path, tmp_path: Path) -> None:
    folder = measured / "evals" / "dark-0-town"
    log = (folder / "samples.jsonl").read_bytes().replace(b'"matrix"', b'"matrices"')
    (tmp_path / "samples.jsonl").write_bytes(log)
    (tmp_path / "record.json").write_bytes((folder / "record.json").read_bytes())
    with pytest.raises(InputError, match=r"has changed since its record was written \(sha256\)"):
        read_entry(tmp_path / "record.json")
    stamp = dataclasses.replace(read_record(tmp_path / "record.json").samples, sha256=hashlib.sha256(log).hexdigest())
    changed(tmp_path / "record.json", samples=stamp)
    with pytest.raises(InputError, match="rows that sar_segmentation did not write"):
        read_entry(tmp_path / "record.json")

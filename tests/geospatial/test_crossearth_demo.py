"""CrossEarth-SAR's demo: one short run from scenes to the report, and its parts in closed form."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from geospatial.class_masks import IGNORE
from geospatial.confusion_intervals import ScoreInterval
from geospatial.crossearth_sar import demo_scenes
from geospatial.crossearth_sar.demo_measure import Scene, joined, measure, tiles_of
from geospatial.crossearth_sar.demo_report import coloured, grey
from geospatial.crossearth_sar.demo_results import verdict
from geospatial.crossearth_sar.demo_upcycling import compare, write_dense_weights
from geospatial.crossearth_sar.modeling import CrossEarthSARModel
from geospatial.crossearth_sar.official import config_from_official, to_ours
from geospatial.crossearth_sar.segmentation_model import CrossEarthSARForSegmentation
from mmzoo.cli import main
from mmzoo.demo import Demo
from mmzoo.families import get_family, load_object
from mmzoo.hub.foreign_weights import read_weights

VARIANT = get_family("crossearth_sar").variants["tiny-demo"]


def segmentation_model(**settings) -> CrossEarthSARForSegmentation:
    torch.manual_seed(0)
    config = load_object(get_family("crossearth_sar").config)
    given = {**VARIANT, "class_names": ["land", "water"], "head": "linear", **settings}
    return CrossEarthSARForSegmentation(config(**given)).eval()


@pytest.fixture(scope="module")
def upcycled(tmp_path_factory):
    """(dense model, the encoder that the import makes of its weights)."""
    folder = tmp_path_factory.mktemp("dense")
    dense = segmentation_model(num_experts=1)
    write_dense_weights(dense, folder / "dense.safetensors", folder / "experts.json", "crossearth-sar/tiny-demo")
    config = config_from_official(json.loads((folder / "experts.json").read_text()))
    state, _ = to_ours(read_weights(folder / "dense.safetensors"), config)
    sparse = CrossEarthSARModel(config).eval()
    sparse.load_state_dict(state)
    return dense, sparse


def batch() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))}


def test_a_dense_models_weights_become_experts_with_its_bits(upcycled):
    dense, sparse = upcycled
    found = compare(dense.encoder, sparse, batch())
    assert (found.images, found.experts) == (3, VARIANT.get("num_experts", 6))
    assert found.difference <= 1e-5 * found.size
    assert found.equal_share > 0.5
    assert compare(dense.encoder, sparse, batch()) == found  # the routers were given back


@pytest.mark.parametrize("expert", [0, 5])
def test_one_expert_that_computes_something_else_is_found(upcycled, expert):
    dense, sparse = upcycled
    weight = sparse.blocks[3].experts.down
    kept = weight[expert, 0, 0].item()
    with torch.no_grad():
        weight[expert, 0, 0] += 1e-4
    try:
        with pytest.raises(RuntimeError, match=f"expert {expert} of the upcycled"):
            compare(dense.encoder, sparse, batch())
    finally:
        with torch.no_grad():
            weight[expert, 0, 0] = kept


def scene(height: int = 128, width: int = 192) -> Scene:
    random = np.random.default_rng(3)
    values = random.normal(-15, 5, (height, width)).astype(np.float32)
    return Scene("s", values, np.ones((height, width), bool), (values > -15).astype(np.uint8))


def test_tiles_come_together_where_they_were_cut():
    model, given = segmentation_model(), scene()
    tiles = tiles_of(given, model)
    assert tiles["pixel_values"].shape == (6, 3, 64, 64)
    expected = ((torch.from_numpy(given.values) + 35) / 40 - 0.5) / 0.2
    torch.testing.assert_close(joined(tiles["pixel_values"][:, 1], (128, 192)), expected)
    with pytest.raises(ValueError, match="not made of tiles of 64 px"):
        tiles_of(scene(100, 64), model)


def test_a_scene_is_measured_as_its_tiles_are_one_by_one():
    model, given = segmentation_model(), scene()
    given.valid[:10] = False
    given.labels[:10] = IGNORE
    found = measure(model, [given, given])
    corner = {name: tile[4:5] for name, tile in tiles_of(given, model).items()}
    alone = model.segment(**corner).argmax(1)[0].numpy()
    assert (found.maps[0][64:, 64:128] == alone).all()
    assert found.matrices.sum((1, 2)).tolist() == [118 * 192] * 2
    known = given.labels != IGNORE
    assert np.trace(found.matrices[0]) == (found.maps[0] == given.labels)[known].sum()
    assert found.routing.expert_counts.sum(1).tolist() == [2 * 6 * 65] * 4
    assert found.routing.descriptors.shape == (12, 3)


def test_scenes_of_the_unseen_radar_are_in_no_list(tmp_path, monkeypatch):
    for split, count in (("train", 2), ("val", 1), ("measured", 1)):
        monkeypatch.setitem(demo_scenes.SPLITS, split, count)
    demo_scenes.write_sensors(tmp_path)
    lists = sorted(tmp_path.glob("*.csv"))
    assert [file.stem for file in lists] == sorted(demo_scenes.SOURCES)
    assert [path.name for path in (tmp_path / demo_scenes.UNSEEN).iterdir()] == ["measured"]
    for file in lists:
        rows = list(csv.DictReader(file.open()))
        assert [row["split"] for row in rows] == ["train", "train", "val"]
        assert all((tmp_path / row[kind]).is_file() for row in rows for kind in ("image", "mask"))
        measured = {image.read_bytes() for image, _ in demo_scenes.measured_pairs(tmp_path, file.stem)}
        assert measured.isdisjoint((tmp_path / row["image"]).read_bytes() for row in rows)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.1, 0.2, "is better"), (-0.2, -0.1, "is worse"), (-0.1, 0.1, "cannot be told"), (None, None, "cannot be told")],
)
def test_a_verdict_needs_an_interval_on_one_side_of_zero(low, high, words):
    assert verdict(ScoreInterval(0.0, low, high, 5)).startswith(words)


def test_pictures_of_maps():
    assert coloured(np.array([[0, IGNORE]], np.uint8)).tolist() == [[[40, 90, 200], [0, 0, 0]]]
    flat = Scene("flat", np.full((4, 4), -10, np.float32), np.ones((4, 4), bool), np.zeros((4, 4), np.uint8))
    assert grey(flat).max() == 0
    assert grey(scene()).min() == 0
    assert grey(scene()).max() == 255


def test_pictures_of_the_users_are_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    assert main(["demo", "crossearth-sar", "--images", "mine"]) == 2
    message = capsys.readouterr().err
    assert "takes no --images" in message
    assert message.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "runs"]


def test_a_short_demo(tmp_path, monkeypatch, capfd):
    """All of it with fewer scenes; the commands run in this process, because starting one takes seconds."""
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 2), ("val", 1), ("measured", 2)):
        monkeypatch.setitem(demo_scenes.SPLITS, split, count)
    commands = []

    def run(demo: Demo, step: str, *arguments: str | Path) -> None:
        commands.append(arguments[:3])
        demo.seconds[step] = 0.0
        assert main([str(argument) for argument in arguments]) == 0

    monkeypatch.setattr(Demo, "run", run)
    assert main(["demo", "crossearth-sar", "--steps", "2"]) == 0
    assert [command[0] for command in commands] == ["fit", "models", "fit", "fit", "fit", "fit"]
    assert "each of 6 experts alone gives the dense encoder's bits" in capfd.readouterr().err
    out = tmp_path / "runs" / "demo"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "mmzoo demo crossearth-sar --steps 2" in page
    assert "Who takes the tokens in block 3" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    results = json.loads((out / "results.json").read_text())
    assert set(results["sensors"]) == set(demo_scenes.SENSORS)
    unseen = results["sensors"][demo_scenes.UNSEEN]
    assert set(unseen["scores"]) == {"experts", "dense", "brightness", "majority"}
    assert unseen["scores"]["experts"]["miou"]["images"] == 2
    assert np.array(unseen["expert_counts"]).sum(1).tolist() == [2 * 4 * 65] * 4
    assert "head.logits" in results["reloaded_bit_equal"]
    tuned, trained = (
        read_weights(out / run / "checkpoints" / "best" / "model" / "model.safetensors")
        for run in ("experts_tuned", "experts")
    )
    same = {name: torch.equal(tuned[name], trained[name]) for name in tuned}
    assert all(equal for name, equal in same.items() if name.startswith("encoder."))
    assert not all(equal for name, equal in same.items() if name.startswith("head."))

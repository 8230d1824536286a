"""The registry of radar benchmarks, palettes with tolerance, and fakes of data sets built into lists that are read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from geospatial.class_masks import IGNORE
from geospatial.crossearth_sar.benchmark_build import Place, build
from geospatial.crossearth_sar.benchmarks import benchmarks, data_sets, get_benchmark, get_data_set
from geospatial.mask_palette import palette_classes, palette_classes_reference
from geospatial.raster_data import RasterData
from geospatial.raster_sources import RasterSource
from mmzoo import cli
from mmzoo.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
COLOURS = ((255, 255, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255), (250, 250, 250))


def write(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    bands = values if values.ndim == 3 else values[None]
    size = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    with rasterio.open(file, "w", driver="GTiff", dtype=bands.dtype, **size) as opened:
        opened.write(bands)


def read(file: Path) -> np.ndarray:
    with rasterio.open(file) as opened:
        return opened.read(1)


def test_there_are_22_over_8_gaps() -> None:
    found = benchmarks().values()
    gaps = [one.gap for one in found]
    assert len(found) == 22
    assert {gap: gaps.count(gap) for gap in gaps} == {
        **dict.fromkeys(("region", "polarisation", "complex value"), 4),
        **{f"region + {name}": 2 for name in ("polarisation", "platform", "band")},
        **{f"region + {name} + band": 2 for name in ("polarisation", "platform")},
    }
    assert sum(not one.known for one in found) == 2
    letters = {one.letter: one.name for one in data_sets().values() if one.letter}
    assert sorted(letters) == list("ADFOSW")
    for name in ("F2A", "A2F", "O2D", "D2O", "S2A", "A2S", "D2F", "F2D", "W2D", "D2W"):
        pair = get_benchmark(name.lower())
        assert (pair.source.data_set, pair.target.data_set) == (letters[name[0]], letters[name[-1]])


def test_every_mapping_is_of_classes_that_exist_and_both_sides_reach_every_shared_class() -> None:
    for pair in benchmarks().values():
        if pair.known:
            for side in (pair.source, pair.target):
                shared = pair.shared_class(str(side.data_set))
                assert set(shared) <= set(data_sets()[str(side.data_set)].classes)
                assert set(shared.values()) == set(pair.classes()), pair.name
    for one in data_sets().values():
        assert one.ids is None or tuple(one.ids) == one.classes
    with pytest.raises(InputError, match="Did you mean 'F2D'"):
        get_benchmark("F2Q")
    with pytest.raises(ValueError, match="unpublished"):
        get_benchmark("region-3").classes()


@given(st.integers(0, 2**32 - 1), st.floats(0, 300))
@settings(max_examples=40, deadline=None)
def test_colours_find_the_nearest_class(seed: int, tolerance: float) -> None:
    random = np.random.default_rng(seed)
    near = np.array(COLOURS)[random.integers(0, len(COLOURS), (4, 5))] + random.integers(-60, 60, (4, 5, 3))
    picture = near.clip(0, 255).astype(np.uint8).transpose(2, 0, 1)
    found = palette_classes(picture, COLOURS, tolerance)
    np.testing.assert_array_equal(found, palette_classes_reference(picture, COLOURS, tolerance))


def sen1floods11(folder: Path) -> None:
    """Five chips of three events with its own lists."""
    lists = {"train": ["Ghana_1", "Ghana_2"], "valid": ["India_3"], "test": ["India_4"], "bolivia": ["Bolivia_5"]}
    for split, chips in lists.items():
        for chip in chips:
            labels = np.array([[-1, 0], [1, 1]], np.int16).repeat(8, 0).repeat(8, 1)
            place = folder / "data" / "flood_events" / "HandLabeled"
            write(place / "S1Hand" / f"{chip}_S1Hand.tif", np.full((2, 16, 16), -12.5, np.float32))
            write(place / "LabelHand" / f"{chip}_LabelHand.tif", labels)
        file = folder / "splits" / "flood_handlabeled" / f"flood_{split}_data.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{chip}_S1Hand.tif,{chip}_LabelHand.tif\n" for chip in chips))


def test_sen1floods11_becomes_lists_that_training_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sen1floods11(tmp_path / "s1f11")
    out = tmp_path / "out"
    assert (
        cli.main(["benchmarks", "build", "sen1floods11", "--source", str(tmp_path / "s1f11"), "--out", str(out)]) == 0
    )
    shown = capsys.readouterr()
    assert shown.out.split() == [str(out / f"source{part}.csv") for part in ("", "_test", "_bolivia")]
    assert "unverified" not in shown.err
    mask = read(next((out / "source_masks").glob("*Ghana_1*")))
    np.testing.assert_array_equal(mask[::8, ::8], [[IGNORE, 0], [1, 1]])
    record = json.loads((out / "benchmark.json").read_text())
    sources = [
        RasterSource(str(out / "source.csv"), domain=record["sides"]["source"]["domain"]),
        RasterSource(str(out / "source_bolivia.csv"), name="bolivia", role="target", domain="db"),
    ]
    classes = {int(number): name for number, name in record["classes"].items()}
    index = RasterData(sources, classes, window=16, global_batch=2).open_index()
    assert [len(index.split_rows(split)) for split in ("train", "val")] == [2, 2]
    (tmp_path / "s1f11" / "splits" / "flood_handlabeled" / "flood_test_data.csv").unlink()
    with pytest.raises(InputError, match=r"its list .* cannot be read"):
        build(Place(get_data_set("sen1floods11"), tmp_path / "s1f11"), {}, (), out, "again")


def whu_and_ddhr(root: Path) -> None:
    """Two scenes of WHU-OPT-SAR with all of its ids, and one tile of DDHR-SK in a layout of its own."""
    ids = np.arange(0, 80, 10, dtype=np.uint8).reshape(2, 4).repeat(4, 0).repeat(4, 1)
    for scene in ("NH49E001013", "NH49E001014"):
        write(root / "whu" / "sar" / f"{scene}.tif", np.ones((8, 16), np.uint8))
        write(root / "whu" / "lbl" / f"{scene}.tif", ids)
    write(root / "ddhr" / "gf3" / "1.tif", np.ones((4, 5), np.uint8))
    write(root / "ddhr" / "truth" / "1.tif", np.arange(1, 6, dtype=np.uint8)[None].repeat(4, 0))
    (root / "codes.json").write_text(
        json.dumps({"building": [1], "road": [2], "greenery": [3], "water": [4], "farmland": [5]})
    )


def test_a_pair_shares_its_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whu_and_ddhr(tmp_path)
    line = ["benchmarks", "build", "W2D", "--source", str(tmp_path / "whu"), "--out", str(tmp_path / "out")]
    assert cli.main([*line, "--target", str(tmp_path / "ddhr")]) == 2
    assert "layout: unverified" in capsys.readouterr().err
    line += ["--target", str(tmp_path / "ddhr"), "--target-images", "gf3/*.tif", "--target-masks", "gf3=truth"]
    assert cli.main(line) == 2
    assert "--target-codes" in capsys.readouterr().err
    assert cli.main([*line, "--target-codes", str(tmp_path / "codes.json")]) == 0
    assert "layout: unverified (ddhr-sk)" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    number = {name: int(key) for key, name in record["classes"].items()}
    source = read(next((tmp_path / "out" / "source_masks").iterdir()))[::4, ::4].ravel()
    wanted = [None, "farmland", "building", "building", "water", "vegetation", "road", None]
    assert source.tolist() == [IGNORE if name is None else number[name] for name in wanted]
    target = read(next((tmp_path / "out" / "target_masks").iterdir()))[0]
    assert target.tolist() == [number[name] for name in ("building", "road", "vegetation", "water", "farmland")]


def test_coloured_masks_with_artefacts_and_a_wrong_palette(tmp_path: Path) -> None:
    data_set = get_data_set("fusar-map")
    colours = {"background": [0, 0, 0], "building": [255, 0, 0], "water": [0, 0, 255]}
    truth = np.random.default_rng(0).integers(0, 3, (16, 16))
    picture = np.array(list(colours.values()))[truth] + np.random.default_rng(1).integers(-15, 16, (16, 16, 3))
    for city in ("JiuJiang", "WuHan"):
        write(tmp_path / "f" / "SAR_1024" / f"{city}_01_SAR_001.tif", np.ones((16, 16), np.uint8))
        label = picture.clip(0, 255).astype(np.uint8).transpose(2, 0, 1)
        write(tmp_path / "f" / "LAB_1024" / f"{city}_01_LAB_001.tif", label)
    (tmp_path / "codes.json").write_text(json.dumps(colours))
    place = Place(data_set, tmp_path / "f", codes=tmp_path / "codes.json")
    built = build(place, {"water": "water", "building": "building"}, ("building", "water"), tmp_path / "out", "source")
    assert (built.images, built.off_palette) == (2, 0.0)
    found = read(next((tmp_path / "out" / "source_masks").iterdir()))
    np.testing.assert_array_equal(found, np.array([IGNORE, 0, 1])[truth])
    rows = (tmp_path / "out" / "source.csv").read_text().splitlines()[1:]
    assert [row.rpartition(",")[2] for row in rows] == ["JiuJiang", "WuHan"]
    (tmp_path / "codes.json").write_text(json.dumps({**colours, "building": [0, 255, 0]}))
    with pytest.raises(InputError, match="no colour of the palette"):
        build(place, {}, (), tmp_path / "out", "wrong")
    (tmp_path / "codes.json").write_text(json.dumps({"lake": [1]}))
    with pytest.raises(InputError, match="'lake'; classes are"):
        build(place, {}, (), tmp_path / "out", "wrong")


def test_what_is_missing_says_how_to_place_it(tmp_path: Path) -> None:
    data_set = get_data_set("whu-opt-sar")
    with pytest.raises(InputError, match=r"Get it from https://github\.com/AmberHen"):
        build(Place(data_set, tmp_path / "none"), {}, (), tmp_path, "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no sar/\*\.tif"):
        build(Place(data_set, tmp_path / "empty"), {}, (), tmp_path, "a")
    whu_and_ddhr(tmp_path)
    with pytest.raises(InputError, match="has no 'optical' in its path"):
        build(Place(data_set, tmp_path / "whu", masks=("optical", "lbl")), {}, (), tmp_path, "a")
    write(tmp_path / "whu" / "lbl" / "NH49E001013.tif", np.full((8, 16), 33, np.uint8))
    with pytest.raises(InputError, match="the ids 33 are no class"):
        build(Place(data_set, tmp_path / "whu"), {}, (), tmp_path, "a")
    (tmp_path / "whu" / "lbl" / "NH49E001013.tif").unlink()
    with pytest.raises(InputError, match="is missing"):
        build(Place(data_set, tmp_path / "whu"), {}, (), tmp_path, "a")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("region-3", "unpublished"), ("VV2F", "--source-images"), ("F2A", "--target"), ("whu-opt", "Did you mean")],
)
def test_what_cannot_be_built_is_refused(name: str, reason: str, tmp_path: Path, capsys) -> None:
    line = ["benchmarks", "build", name, "--source", str(tmp_path), "--out", str(tmp_path / "out")]
    target = ["--target", str(tmp_path)] if name == "VV2F" else []
    assert cli.main([*line, *target]) == 2
    assert reason in capsys.readouterr().err


def test_the_list_says_what_is_unpublished(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmarks", "list"]) == 0
    shown = capsys.readouterr().out
    assert "W2D       whu-opt-sar -> ddhr-sk" in shown
    assert "layout: unverified" in shown
    assert cli.main(["benchmarks", "list", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert len(plain["benchmarks"]) == 22
    assert sum(one["known"] for one in plain["benchmarks"]) == 20

"""The registry of radar benchmarks, palettes with tolerance, and fakes of data sets built into lists that are read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geospatial.class_masks import IGNORE
from geospatial.crossearth_sar.benchmark_build import Place, build, class_ids
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
        assert one.palette is None or tuple(one.palette) == one.classes
        assert one.layout.source == "unverified" or "github.com/" in one.layout.source
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


def whu_opt_sar(folder: Path, scenes: tuple[str, ...] = ("NH49E001013", "NH49E001014")) -> None:
    """Scenes with all of its ids: {optical,sar,lbl}/SCENE.tif, ids in tens (README of AmberHen/WHU-OPT-SAR-dataset)."""
    ids = np.arange(0, 80, 10, dtype=np.uint8).reshape(2, 4).repeat(4, 0).repeat(4, 1)
    for scene in scenes:
        write(folder / "optical" / f"{scene}.tif", np.ones((4, 8, 16), np.uint8))
        write(folder / "sar" / f"{scene}.tif", np.full((8, 16), 90, np.uint8))
        write(folder / "lbl" / f"{scene}.tif", ids)


def ddhr_sk(folder: Path) -> None:
    """Tiles GF2/N.jpg, GF3/N.jpg, label/N.png as create_data_list.py of XD-MG/DDHRNet lists them; ids from 0."""
    ids = np.arange(5, dtype=np.uint8).repeat(4)[None].repeat(16, 0)
    for number in range(1, 4):
        for place in ("GF2", "GF3", "label"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        for place in ("GF2", "GF3"):
            Image.fromarray(np.full((16, 20, 3), 90, np.uint8)).save(folder / place / f"{number}.jpg")
        label = Image.fromarray(ids)
        label.putpalette([255, 0, 0, 0, 0, 255, 255, 255, 0, 255, 0, 255, 0, 255, 0])  # a pseudo-colour PNG of ids
        label.save(folder / "label" / f"{number}.png")


def fusar_map(folder: Path, colours: dict, truth: np.ndarray, noise: int = 0) -> None:
    """SAR_1024/CITY_.._SAR_NNN.tif and LAB_1024/CITY_.._Label_NNN.tif: names of fudanxu/FUSAR-Map, collect.m."""
    picture = np.array(list(colours.values()))[truth] + np.random.default_rng(1).integers(
        -noise, noise + 1, (*truth.shape, 3)
    )
    label = picture.clip(0, 255).astype(np.uint8).transpose(2, 0, 1)
    for number, city in enumerate(("JiuJiang", *["WuHan"] * 6), 1):
        name = f"{city}_0{number}_01_01_01"
        write(folder / "SAR_1024" / f"{name}_SAR_00{number}.tif", np.ones(truth.shape, np.uint8))
        write(folder / "OPT_1024" / f"{name}_Optical_00{number}.tif", np.ones((3, *truth.shape), np.uint8))
        write(folder / "LAB_1024" / f"{name}_Label_00{number}.tif", label)


def openearthmap_sar(folder: Path) -> None:
    """train/{rgb_images,sar_images,labels}/NAME.tif, ids 1 to 8 and 0 for nothing; val without labels."""
    for name in ("TrainArea_001", "TrainArea_002"):
        write(folder / "train" / "rgb_images" / f"{name}.tif", np.ones((3, 4, 9), np.uint8))
        write(folder / "train" / "sar_images" / f"{name}.tif", np.ones((4, 9), np.uint8))
        write(folder / "train" / "labels" / f"{name}.tif", np.arange(9, dtype=np.uint8)[None].repeat(4, 0))
    write(folder / "val" / "sar_images" / "ValArea_001.tif", np.ones((4, 9), np.uint8))


def masks_in(out: Path, side: str = "source") -> list[np.ndarray]:
    return [read(file) for file in sorted((out / f"{side}_masks").iterdir())]


def run(*line: object) -> int:
    return cli.main(["benchmarks", "build", *map(str, line)])


def test_a_pair_shares_its_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whu_opt_sar(tmp_path / "whu")
    ddhr_sk(tmp_path / "ddhr")
    line = ["W2D", "--source", tmp_path / "whu", "--target", tmp_path / "ddhr", "--out", tmp_path / "out"]
    assert run(*line) == 0
    assert "unverified" not in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    number = {name: int(key) for key, name in record["classes"].items()}
    source = masks_in(tmp_path / "out")[0][::4, ::4].ravel()
    wanted = [None, "farmland", "building", "building", "water", "vegetation", "road", None]
    assert source.tolist() == [IGNORE if name is None else number[name] for name in wanted]
    target = masks_in(tmp_path / "out", "target")[0][0, ::4]
    assert target.tolist() == [number[name] for name in ("building", "road", "vegetation", "water", "farmland")]
    assert record["sides"]["target"]["domain"] == "display8"
    rows = [row.split(",") for row in (tmp_path / "out" / "target.csv").read_text().splitlines()[1:]]
    assert [row[2] for row in rows] == ["val"] * 3  # never trained on
    sources = [
        RasterSource(str(tmp_path / "out" / "source.csv"), domain="display8", split="train"),
        RasterSource(str(tmp_path / "out" / "target.csv"), name="sk", role="target", domain="display8", bands=[1]),
    ]
    classes = {int(key): name for key, name in record["classes"].items()}
    assert len(RasterData(sources, classes, window=8, global_batch=2).open_index().entries) == 5


def test_a_layout_that_nobody_states_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "s" / "img" / "a.tif", np.ones((4, 5), np.uint8))
    write(tmp_path / "s" / "truth" / "a.png", np.array([[0, 1, 255, 0, 0]], np.uint8).repeat(4, 0))
    line = ["sarbud", "--source", tmp_path / "s", "--out", tmp_path / "out", "--val-fraction", 0]
    assert run(*line) == 2
    assert "layout: unverified" in capsys.readouterr().err
    assert run(*line, "--source-images", "img/*.tif", "--source-masks", "img") == 2
    assert "give OLD=NEW" in capsys.readouterr().err
    assert run(*line, "--source-images", "img/*.tif", "--source-masks", "img=img") == 2
    assert "would be the image itself" in capsys.readouterr().err
    assert run(*line, "--source-images", "img/*.tif", "--source-masks", "img=truth,tif=png") == 0
    assert "layout: unverified (sarbud): look at a few masks" in capsys.readouterr().err
    assert masks_in(tmp_path / "out")[0][0].tolist() == [0, 1, 1, 0, 0]
    air = ["air-polsar-seg-2", "--source", tmp_path / "s", "--out", tmp_path / "air"]
    assert run(*air, "--source-images", "img/*.tif", "--source-masks", "img=truth,tif=png") == 2
    assert "Give --source-codes" in capsys.readouterr().err


def test_openearthmap_sar_in_its_layout(tmp_path: Path) -> None:
    openearthmap_sar(tmp_path / "oem")
    assert run("openearthmap-sar", "--source", tmp_path / "oem", "--out", tmp_path / "out") == 0
    found = masks_in(tmp_path / "out")
    assert [mask[0].tolist() for mask in found] == [[IGNORE, *range(8)]] * 2
    write(tmp_path / "oem" / "train" / "labels" / "TrainArea_002.tif", np.full((4, 9), 255, np.uint8))
    assert run("openearthmap-sar", "--source", tmp_path / "oem", "--out", tmp_path / "out") == 2  # 255 is no id of it


def test_fusar_map_in_its_layout_with_artefacts(tmp_path: Path) -> None:
    data_set = get_data_set("fusar-map")
    truth = np.random.default_rng(0).integers(0, 5, (16, 16))
    fusar_map(tmp_path / "f", dict(data_set.palette), truth, noise=15)
    shared = {"water": "water", "building": "building"}
    built = build(Place(data_set, tmp_path / "f"), shared, ("building", "water"), tmp_path / "out", "source")
    assert (built.images, built.off_palette) == (7, 0.0)
    place = {"building": 0, "water": 1}
    wanted = np.array([place.get(name, IGNORE) for name in data_set.classes])[truth]
    for found in masks_in(tmp_path / "out"):
        np.testing.assert_array_equal(found, wanted)
    rows = [row.split(",") for row in (tmp_path / "out" / "source.csv").read_text().splitlines()[1:]]
    assert [row[3] for row in rows] == ["JiuJiang", *["WuHan"] * 6]
    assert len({row[2] for row in rows if row[3] == "WuHan"}) == 1  # a city stays in one split


def test_a_palette_that_does_not_fit_is_refused_and_a_few_stray_pixels_are_said(tmp_path: Path, capsys) -> None:
    colours = {"background": [0, 0, 0], "building": [255, 0, 0], "water": [0, 0, 255]}
    truth = np.zeros((10, 20), np.int64)
    truth[0, :18] = 1
    fusar_map(tmp_path / "f", {**colours, "building": [120, 200, 120]}, truth)
    (tmp_path / "codes.json").write_text(json.dumps(colours))
    line = ["fusar-map", "--source", tmp_path / "f", "--out", tmp_path / "out", "--val-fraction", 0]
    assert run(*line, "--source-codes", tmp_path / "codes.json") == 2  # 18 of 200 pixels
    assert "9% of the mask pixels are within 40 of no colour" in capsys.readouterr().err
    truth[0, 8:18] = 0
    fusar_map(tmp_path / "f", {**colours, "building": [120, 200, 120]}, truth)
    clean = tmp_path / "f" / "LAB_1024" / "WuHan_07_01_01_01_Label_007.tif"
    write(clean, np.zeros((3, 10, 20), np.uint8))
    assert run(*line, "--source-codes", tmp_path / "codes.json") == 0
    assert "fusar-map: 3.43% of the pixels were near no colour: 255" in capsys.readouterr().err  # 6 of 7 masks have 4 %
    assert masks_in(tmp_path / "out")[2][0, :9].tolist() == [IGNORE] * 8 + [0]
    for wrong, reason in (
        ({"lake": [1]}, "'lake'; classes are"),
        ({"water": []}, "an empty entry"),
        ({}, "an empty entry"),
        ([1], "no JSON of"),
    ):
        (tmp_path / "codes.json").write_text(json.dumps(wrong))
        assert run(*line, "--source-codes", tmp_path / "codes.json") == 2
        assert reason in capsys.readouterr().err


def test_masks_of_another_kind(tmp_path: Path) -> None:
    data_set = get_data_set("fusar-map")
    red = np.array([255, 0, 0], np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    write(tmp_path / "with_alpha.tif", np.concatenate([red, np.full((1, 4, 4), 255, np.uint8)]))
    write(tmp_path / "grey.tif", red[:1])
    shared = {"building": "building"}
    assert (class_ids(tmp_path / "with_alpha.tif", data_set, shared, ("building",))[0] == 0).all()
    with pytest.raises(InputError, match="has 1 bands; a picture of FUSAR-Map has three"):
        class_ids(tmp_path / "grey.tif", data_set, shared, ("building",))


IDS = {"building": [1], "road": [2], "greenery": [3], "water": [4], "farmland": [5]}


@pytest.mark.parametrize(
    ("mask", "change", "options", "message"),
    [
        (np.ones((1, 4, 6), np.uint8), {}, (), r"label/0\.tif is 6 x 4 px, .*sar/0\.tif is 6 x 6"),
        (np.arange(108).reshape(3, 6, 6).astype(np.uint8), {}, (), "is no mask of ids: 3 unequal bands"),
        (np.ones((1, 6, 6), np.complex64), {}, (), "is no mask of ids: .* complex64"),
        (np.ones((1, 6, 6), np.uint8), {"road": [1]}, (), "the id 1 stands there twice"),
        (np.ones((1, 6, 6), np.uint8), {"road": [2.5]}, (), "is no JSON of"),
        (np.ones((1, 6, 6), np.uint8), {}, ("--source-images", "/etc/*"), "Give a pattern inside of"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask, change, options, message, tmp_path: Path, capsys) -> None:
    write(tmp_path / "d/sar/0.tif", np.ones((1, 6, 6), np.float32))
    write(tmp_path / "d/label/0.tif", mask)
    (tmp_path / "codes.json").write_text(json.dumps({**IDS, **change}))
    line = ["ddhr-sk", "--source", tmp_path / "d", "--source-images", "sar/*.tif", "--source-masks", "sar=label"]
    line += ["--source-codes", tmp_path / "codes.json", "--out", tmp_path / "out", "--val-fraction", "0", *options]
    assert run(*line) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out/source.csv").exists()


def test_splits_and_places_are_those_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    scenes = tuple(f"NH49E0010{number}" for number in range(10, 30))
    whu_opt_sar(tmp_path / "whu", scenes)
    (tmp_path / "whu" / "sar").rename(tmp_path / "whu" / "gf3")
    monkeypatch.chdir(tmp_path)
    line = ["whu-opt-sar", "--source", "whu", "--source-images", "gf3/*.tif", "--source-masks", "gf3=lbl"]

    def splits(fraction: float) -> list[str]:
        assert run(*line, "--out", f"out{fraction}", "--val-fraction", fraction) == 0
        rows = [row.split(",") for row in Path(f"out{fraction}/source.csv").read_text().splitlines()[1:]]
        assert all(Path(row[0]).is_absolute() for row in rows)  # a list is read from another folder too
        return [row[2] for row in rows]

    assert splits(0).count("val") == 0
    assert 0 < splits(0.1).count("val") < splits(0.6).count("val") < 20
    for wrong in ("1", "-0.1"):
        assert run(*line, "--out", "x", "--val-fraction", wrong) == 2
        assert "give a share from 0 up" in capsys.readouterr().err


def test_what_is_missing_says_how_to_place_it(tmp_path: Path) -> None:
    data_set = get_data_set("whu-opt-sar")
    with pytest.raises(InputError, match=r"Get it from https://github\.com/AmberHen"):
        build(Place(data_set, tmp_path / "none"), {}, (), tmp_path, "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no sar/\*\.tif"):
        build(Place(data_set, tmp_path / "empty"), {}, (), tmp_path, "a")
    whu_opt_sar(tmp_path / "whu")
    with pytest.raises(InputError, match="has no 'optical' in its path"):
        build(Place(data_set, tmp_path / "whu", masks={"optical": "lbl"}), {}, (), tmp_path, "a")
    write(tmp_path / "whu" / "lbl" / "NH49E001013.tif", np.full((8, 16), 33, np.uint8))
    with pytest.raises(InputError, match="the ids 33 are no class"):
        build(Place(data_set, tmp_path / "whu"), {}, (), tmp_path, "a")
    (tmp_path / "whu" / "lbl" / "NH49E001013.tif").unlink()
    with pytest.raises(InputError, match="is missing"):
        build(Place(data_set, tmp_path / "whu"), {}, (), tmp_path, "a")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("region-3", "unpublished"),
        ("VV2F", "a part or channel of AIR-PolSAR-Seg-2.0: VV"),
        ("F2A", "--target"),
        ("whu-opt", "Did you mean"),
    ],
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

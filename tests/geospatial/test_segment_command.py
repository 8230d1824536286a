"""`mmzoo segment` end to end on small scenes: what a map keeps, carries, and does when something is wrong."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from geospatial import scene_making, scene_work
from geospatial.class_masks import IGNORE
from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.family import TINY
from geospatial.crossearth_sar.scene_model import TileSegmenter
from geospatial.crossearth_sar.segment import main, map_files
from geospatial.crossearth_sar.segmentation_model import CrossEarthSARForSegmentation
from geospatial.raster import Raster, RasterSettings
from geospatial.scene_inference import reference
from geospatial.scene_layers import classes_layer, first_largest
from geospatial.scene_polygons import write_polygons
from geospatial.scene_tiles import Blend
from mmzoo.errors import InputError
from mmzoo.hub.save import save_model

NAMES = ["land", "water", "ice & snow"]
SIZE = 150, 110
TILES = ("--crop", "32", "--overlap", "12", "--halo", "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a model with random weights that gives every class somewhere."""
    torch.manual_seed(0)
    config = CrossEarthSARConfig(**{**TINY, "class_names": NAMES, "head": "linear", "domain": "amplitude"})
    folder = tmp_path_factory.mktemp("model") / "m"
    save_model(CrossEarthSARForSegmentation(config), folder)
    return folder


def values_of(size=SIZE) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.gamma(2, 40, (1, *size)).astype(np.float32) + 1


@pytest.fixture(scope="module")
def scene(tmp_path_factory, raster_at):
    values = values_of()
    values[0, :40, :40] = np.nan
    return raster_at(tmp_path_factory.mktemp("scene") / "scene.tif", values, nodata=np.nan)


def run(scene, target, model, *options) -> int:
    scenes = scene if isinstance(scene, list) else [scene]
    device = () if "--device" in options else ("--device", "cpu")
    return main([*map(str, scenes), "--model", str(model), "-o", str(target), *TILES, *device, *options], "segment")


def read(path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


@pytest.fixture(scope="module")
def everything(scene, model, tmp_path_factory):
    target = tmp_path_factory.mktemp("map") / "map.tif"
    extras = ("--confidence", "--probabilities", "--experts", "--descriptors")
    beside = ("--polygons", "geojson", "--stac", "--datetime", "2020-11-07T02:00:00+01:00")
    run(scene, target, model, *extras, *beside, "--batch-size", "3")
    return target


def test_a_map_is_what_the_reference_gives(everything, scene, model):
    segmenter = TileSegmenter(CrossEarthSARForSegmentation.from_pretrained(model, quiet=True), ["experts"])
    with Raster(scene, RasterSettings()) as raster:
        pixels = raster.read()
    expected = reference(pixels, Blend(32, 12, 2), segmenter)
    best = np.sort(expected[:3], 0)
    sure = pixels.valid & (best[2] - best[1] > 1e-4)
    assert sure.mean() > 0.8
    np.testing.assert_array_equal(read(everything)[0][sure], expected[:3].argmax(0)[sure])
    shares = read(everything.with_stem("map_probabilities"))
    assert np.abs(shares[:, pixels.valid] - 100 * expected[:3, pixels.valid]).max() <= 0.51
    experts = read(everything.with_stem("map_experts"))
    assert np.abs(experts[:, pixels.valid] - 100 * expected[3:, pixels.valid]).max() <= 0.51
    confidence = read(everything.with_stem("map_confidence"))
    np.testing.assert_array_equal(confidence[0], np.where(pixels.valid, shares.max(0), IGNORE))


def test_a_map_keeps_the_place_and_says_what_it_is(everything, scene):
    with rasterio.open(everything) as found, rasterio.open(scene) as given:
        assert (found.crs, found.transform, found.shape, found.bounds) == (
            given.crs,
            given.transform,
            given.shape,
            given.bounds,
        )
        assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (found.dtypes, found.nodata, found.descriptions) == (("uint8",), 255, ("class",))
        assert [found.tags(1)[f"class_{number}"] for number in range(3)] == NAMES
        colours = [found.colormap(1)[number] for number in (0, 1, 2, 255)]
        assert len(set(colours)) == 4
        assert colours[3][3] == 0
        tags = found.tags()
        assert tags["MMZOO_DOMAIN"] == "amplitude"
        assert len(tags["MMZOO_MODEL_SHA256"]) == 64
    assert "<Category>ice &amp; snow</Category>" in everything.with_name("map.tif.aux.xml").read_text()
    assert not everything.with_name(".map.tif.work").exists()


def test_descriptors_and_experts_have_bands_with_names(everything):
    with rasterio.open(everything.with_stem("map_descriptors")) as file:
        assert file.dtypes == ("float32",) * 3
        assert file.descriptions[1].startswith("equivalent number of looks")
        assert np.isnan(file.read()[:, 0, 0]).all()
        assert np.isfinite(file.read()[:, -1, -1]).all()
    with rasterio.open(everything.with_stem("map_experts")) as file:
        valid = file.read(1) != IGNORE
        assert np.abs(file.read().astype(int).sum(0)[valid] - 100).max() <= 3


def test_polygons_and_the_stac_item_agree_with_the_map(everything):
    content = json.loads(everything.with_suffix(".geojson").read_text())
    classes = read(everything)[0]
    assert {each["properties"]["class"] for each in content["features"]} == set(np.unique(classes)) - {IGNORE}
    assert {each["properties"]["name"] for each in content["features"]} <= set(NAMES)
    item = json.loads(everything.with_suffix(".json").read_text())
    west, south, east, north = item["bbox"]
    points = np.array([p for each in content["features"] for ring in each["geometry"]["coordinates"] for p in ring])
    assert west - 1e-9 <= points[:, 0].min() < points[:, 0].max() <= east + 1e-9
    assert south - 1e-9 <= points[:, 1].min() < points[:, 1].max() <= north + 1e-9
    assert item["properties"]["datetime"] == "2020-11-07T01:00:00Z"
    assert item["properties"]["proj:code"] == "EPSG:32633"
    assert [each["name"] for each in item["assets"]["classes"]["classification:classes"]] == NAMES
    assert all(everything.with_name(asset["href"]).is_file() for asset in item["assets"].values())


def test_a_geopackage_holds_the_areas_of_the_map(everything):
    """Read back by the tables that the standard prescribes, areas by the shoelace formula."""
    path = write_polygons(everything, "gpkg", NAMES)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA application_id").fetchone() == (0x47504B47,)
        assert database.execute("SELECT srs_id FROM gpkg_geometry_columns").fetchall() == [(32633,)]
        rows = database.execute("SELECT geom, class, name FROM areas").fetchall()
        extent = database.execute("SELECT min_x, min_y, max_x, max_y FROM gpkg_contents").fetchone()
    with rasterio.open(everything) as file:
        classes, bounds = file.read(1), file.bounds
    assert extent == tuple(bounds)
    pixels = dict.fromkeys(range(3), 0.0)
    for blob, number, name in rows:
        assert name == NAMES[number]
        pixels[number] += area_of(blob) / 100
    assert pixels == {number: pytest.approx((classes == number).sum()) for number in range(3)}


def area_of(blob: bytes) -> float:
    """Of a polygon with holes, in square metres."""
    assert blob[:4] == b"GP\x00\x03"
    rings, place = struct.unpack_from("<I", blob, 45)[0], 49
    areas = []
    for _ in range(rings):
        count = struct.unpack_from("<I", blob, place)[0]
        x, y = np.frombuffer(blob, "<f8", 2 * count, place + 4).reshape(-1, 2).T - [[5e5], [5e6]]
        areas.append(abs((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2)
        place += 4 + 16 * count
    assert place == len(blob)
    return areas[0] - sum(areas[1:])


def nodata_cases() -> dict:
    holes = values_of((40, 40))[0]
    holes[5:20, 10:30] = 0
    return {
        "nan": (np.where(holes == 0, np.nan, holes), {"nodata": np.nan}, "file"),
        "zero": (holes, {"nodata": 0}, "file"),
        "asked": (holes, {}, "0"),
        "none": (holes, {"nodata": 0}, "none"),
        "mask": (holes + 1, {}, "file"),
    }


@pytest.mark.parametrize("case", nodata_cases())
def test_no_data_stays_no_data_and_data_stays_data(case, tmp_path, raster_at, model):
    values, options, nodata = nodata_cases()[case]
    path = raster_at(tmp_path / "a.tif", values[None].astype(np.float32), **options)
    holes = nodata_cases()["asked"][0] == 0
    if case == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask(~holes)
    run(path, tmp_path / "m.tif", model, "--nodata", nodata)
    expected = np.zeros_like(holes) if case == "none" else holes
    np.testing.assert_array_equal(read(tmp_path / "m.tif")[0] == IGNORE, expected)


@pytest.mark.parametrize("size", [(1, 1), (7, 31), (33, 20)])
def test_scenes_smaller_than_a_tile_and_without_crs_work(size, tmp_path, model, capsys):
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", count=1, height=size[0], width=size[1], dtype="float32") as file:
        file.write(values_of(size))
    assert run(path, tmp_path / "m.tif", model, "--domain", "amplitude") == 0
    assert "no CRS" in capsys.readouterr().err
    with rasterio.open(tmp_path / "m.tif") as found:
        assert found.shape == size
        assert found.crs is None
        assert found.read().max() < len(NAMES)


def test_ground_control_points_and_rotated_rows_are_kept(tmp_path, raster_at, model, capsys):
    path = tmp_path / "a.tif"
    corners = [(0, 0, 10, 50), (0, 50, 11, 50.1), (40, 0, 10.1, 49)]
    points = [GroundControlPoint(*corner, 0, str(number)) for number, corner in enumerate(corners)]
    size = {"count": 1, "height": 40, "width": 50, "dtype": "float32"}
    with rasterio.open(path, "w", driver="GTiff", gcps=points, crs="EPSG:4326", **size) as file:
        file.write(values_of((40, 50)))
        file.update_tags(domain="amplitude")
    run(path, tmp_path / "m.tif", model, "--roi", "10,5,50,40")
    with rasterio.open(tmp_path / "m.tif") as found:
        kept, crs = found.gcps
        assert crs == CRS.from_epsg(4326)
        assert found.shape == (35, 40)
        assert [(each.row, each.col, each.x, each.y) for each in kept] == [
            (row - 5, column - 10, x, y) for row, column, x, y in corners
        ]
    rotated = raster_at(tmp_path / "b.tif", values_of((40, 50)))
    turned = Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(10, -10)
    with rasterio.open(rotated, "r+") as file:
        file.transform = turned
    run(rotated, tmp_path / "r.tif", model)
    with rasterio.open(tmp_path / "r.tif") as found:
        assert found.transform.almost_equals(turned)
    assert "rotated" in capsys.readouterr().err


def test_regions_are_cut_out_on_the_grid_of_the_scene(scene, model, tmp_path):
    left, top = 500000, 5000000
    run(scene, tmp_path / "b.tif", model, "--roi", f"{left + 395},{top - 1205},{left + 800},{top - 500}")
    with rasterio.open(tmp_path / "b.tif") as found, rasterio.open(scene) as given:
        assert found.shape == (71, 41)
        assert found.transform @ (0, 0) == (left + 390, top - 500)
        assert found.res == given.res
        assert (found.read(1) != IGNORE).all()
    triangle = [[left + 500, top - 500], [left + 1000, top - 500], [left + 500, top - 1000], [left + 500, top - 500]]
    geometry = {"type": "Polygon", "coordinates": [triangle]}
    roi = tmp_path / "roi.geojson"
    roi.write_text(json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": geometry}]}))
    run(scene, tmp_path / "t.tif", model, "--roi", str(roi), "--roi-crs", "EPSG:32633")
    inside = read(tmp_path / "t.tif")[0] != IGNORE
    rows, columns = np.mgrid[:50, :50]
    beside_the_edge = rows + columns != 49
    np.testing.assert_array_equal(inside[beside_the_edge], (rows + columns < 49)[beside_the_edge])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--roi", "5,5,5,9"), "holds nothing"),
        (("--roi", "0,0,10,10"), "lies outside"),
        (("--roi", "-20,-10,-5,-5"), "--roi -20,-10,-5,-5 lies outside"),
        (("--roi", "nowhere.geojson"), "neither"),
        (("--roi", "0,0,9,9", "--roi-crs", "EPSG:99999999"), "is no CRS"),
        (("--roi-crs", "EPSG:4326"), "there is no --roi"),
        (("--domain", "db"), "the model takes amplitude"),
        (("--overlap", "32"), "--overlap"),
        (("--batch-size", "0"), "--batch-size"),
        (("--crop", "4", "--overlap", "0", "--halo", "0"), "patch"),
        (("--stac",), "--datetime"),
        (("--stac", "--datetime", "yesterday"), "no date"),
        (("--polygons", "a.shp"), "geojson"),
        (("--nodata", "zero"), "--nodata"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(options, message, scene, model, tmp_path):
    with pytest.raises(InputError, match=message) as mistake:
        run(scene, tmp_path / "m.tif", model, *options)
    assert "\n" not in str(mistake.value)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_scene_is_named_and_leaves_no_map(tmp_path, raster_at, model):
    path = raster_at(tmp_path / "a.tif", values_of((200, 64)), compress="deflate", blockysize=8)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = os.urandom(3000)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tif cannot be read"):
        run(path, tmp_path / "m.tif", model)
    assert not (tmp_path / "m.tif").exists()


def test_more_classes_than_a_byte_holds_are_refused():
    with pytest.raises(InputError, match="fewer than 255"):
        classes_layer([str(number) for number in range(255)])
    assert classes_layer([str(number) for number in range(254)]).nodata == IGNORE


def test_the_first_of_the_largest_is_the_class():
    values = torch.randint(0, 4, (7, 50, 60)).float()
    torch.testing.assert_close(first_largest(values).long(), torch.from_numpy(values.numpy().argmax(0)))


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(scene, model, tmp_path, monkeypatch, capsys):
    append, calls = scene_work._append, []

    def full(path: Path, content):
        calls.append(path)
        if len(calls) > 5:
            path.open("ab").write(bytes(content)[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(path, content)

    monkeypatch.setattr(scene_work, "_append", full)
    with pytest.raises(InputError, match="No space left") as mistake:
        run(scene, tmp_path / "m.tif", model)
    assert "\n" not in str(mistake.value)
    assert not (tmp_path / "m.tif").exists()
    monkeypatch.setattr(scene_work, "_append", append)
    run(scene, tmp_path / "m.tif", model)
    assert "goes on after row 40" in capsys.readouterr().err
    run(scene, tmp_path / "whole.tif", model)
    np.testing.assert_array_equal(read(tmp_path / "m.tif"), read(tmp_path / "whole.tif"))


@pytest.mark.parametrize("after", [1, 4, 6])
def test_a_killed_run_goes_on_and_gives_the_same_pixels(after, scene, model, everything, tmp_path, monkeypatch):
    """A kill leaves the working folder as it is; what was written after the journal's last line is of no account."""

    class Killed(BaseException):
        pass

    extras = ("--confidence", "--probabilities", "--experts", "--descriptors", "--batch-size", "3")
    append, rows = scene_work.SceneWork.append, []

    def killed(self, given):
        if len(rows) == after:
            with self.file(self.layers[-1]).open("ab") as file:
                file.write(b"torn")
            raise Killed
        rows.append(given)
        append(self, given)

    monkeypatch.setattr(scene_work.SceneWork, "append", killed)
    with pytest.raises(Killed):
        run(scene, tmp_path / "map.tif", model, *extras)
    monkeypatch.setattr(scene_work.SceneWork, "append", append)
    run(scene, tmp_path / "map.tif", model, *extras)
    for name in ("map", "map_confidence", "map_probabilities", "map_experts", "map_descriptors"):
        np.testing.assert_array_equal(read(tmp_path / f"{name}.tif"), read(everything.with_stem(name)))


def test_rows_of_other_settings_are_not_gone_on_from(scene, model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scene_making, "write_map", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(scene, tmp_path / "m.tif", model)
    monkeypatch.undo()
    capsys.readouterr()
    run(scene, tmp_path / "m.tif", model, "--blend", "constant")
    assert "goes on" not in capsys.readouterr().err
    with pytest.raises(InputError, match="--overwrite"):
        run(scene, tmp_path / "m.tif", model)
    run(scene, tmp_path / "m.tif", model, "--overwrite", "--json")
    assert json.loads(capsys.readouterr().out)["kept"] is False
    run(scene, tmp_path / "m.tif", model, "--json")
    record = json.loads(capsys.readouterr().out)
    assert record["kept"] is True
    assert sum(record["pixels"].values()) + record["no_data"] == SIZE[0] * SIZE[1]


def test_many_scenes_go_to_a_folder(tmp_path, raster_at, model, capsys):
    scenes = [raster_at(tmp_path / f"{name}.tif", values_of((20, 20))) for name in "ab"]
    run(scenes, f"{tmp_path}/maps/", model)
    assert capsys.readouterr().out.split() == [f"{tmp_path}/maps/{name}.tif" for name in "ab"]
    for wrong, message in (
        (f"{tmp_path}/one.tif", "one map"),
        (f"{tmp_path}/a.png", "GeoTIFF"),
        (str(tmp_path), "replace"),
    ):
        with pytest.raises(InputError, match=message):
            map_files(scenes, wrong)


def test_scene_descriptors_are_the_same_for_every_tile(scene, model, tmp_path):
    run(scene, tmp_path / "m.tif", model, "--descriptors", "--descriptor-scope", "scene")
    found = read(tmp_path / "m_descriptors.tif")
    for band in found:
        assert np.ptp(band[np.isfinite(band)]) < 1e-4 * np.abs(band[np.isfinite(band)]).max()


def test_overviews_hold_only_classes_that_are_there(tmp_path, raster_at, model):
    size = 600, 520
    path = raster_at(tmp_path / "a.tif", values_of(size))
    run(path, tmp_path / "m.tif", model, "--crop", "64", "--overlap", "0", "--halo", "0", "--batch-size", "16")
    with rasterio.open(tmp_path / "m.tif") as file:
        assert file.overviews(1)
        classes = set(np.unique(file.read(1)))
    with rasterio.open(tmp_path / "m.tif", overview_level=0) as small:
        assert set(np.unique(small.read(1))) <= classes

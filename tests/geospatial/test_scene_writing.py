"""Maps as they get to the disk: overviews from passing rows as GDAL makes them, a disk that is full at any step, and
whole-scene peers of the bench that come to the same map.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import rasterio
import torch
from rasterio.errors import RasterioError
from rasterio.shutil import copy

from geospatial.class_masks import IGNORE
from geospatial.gdal_writing import gdal_writes_named
from geospatial.raster import Raster, RasterSettings
from geospatial.scene_layers import classes_layer
from geospatial.scene_making import SegmentSettings
from geospatial.scene_overviews import ModeOverviews, halved_by_mode, overview_sizes
from geospatial.scene_segmentation import class_counts, segment_scene
from geospatial.scene_tiles import Blend
from mmzoo.durable_files import NoSpaceError
from mmzoo.errors import InputError
from tests.benchmarks import scene_case
from tests.benchmarks.peers.scene_loops import plain_windows, whole_scene_map

BLEND = Blend(64, 16, 4)
BLOCK = 64
LAYOUT = {"driver": "GTiff", "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
KIB = 1024


class TileModel(scene_case.CheapModel):
    """Three classes; what a tile says of a pixel depends on the whole tile, so that blending matters."""

    channels, names = 3, ["a", "b", "c"]
    layers = [classes_layer(names)]  # noqa: RUF012

    def predict(self, values, valid):
        value = values[:, 0] + 0.1 * values.mean((1, 2, 3), keepdim=True)[:, 0]
        return torch.stack([1 - value, 0.9 * (value - 1).abs(), value - 1], 1)


def made(scene, target) -> np.ndarray:
    settings = SegmentSettings(BLEND, {"model": "x", "model_sha256": "0"}, RasterSettings())
    segment_scene(scene, target, TileModel(), settings)
    with rasterio.open(target) as file:
        return file.read(1)


def classes_of(size, classes=3, empty=0.3) -> np.ndarray:
    random = np.random.default_rng(0)
    values = random.integers(0, classes, size).astype(np.uint8)
    values[random.random(size) < empty] = IGNORE
    return values


def write_classes(path, values, **options) -> None:
    size = {"count": 1, "height": values.shape[0], "width": values.shape[1], "dtype": "uint8", "nodata": IGNORE}
    with rasterio.open(path, "w", **LAYOUT, **size, crs="EPSG:32633", **options) as file:
        file.write(values, 1)


def overviews_of(path) -> list[np.ndarray]:
    with rasterio.open(path) as file:
        levels = len(file.overviews(1))
    found = []
    for level in range(levels):
        with rasterio.open(path, overview_level=level) as file:
            found.append(file.read(1))
    return found


@pytest.mark.parametrize(("classes", "empty"), [(2, 0.0), (3, 0.3), (200, 0.9)])
def test_overviews_are_those_that_gdal_makes(classes, empty, tmp_path):
    values = classes_of((256, 512), classes, empty)
    write_classes(tmp_path / "theirs.tif", values)
    write_classes(tmp_path / "ours.tif", values)
    with ModeOverviews(tmp_path / "ours.tif", values.shape, BLOCK, IGNORE, LAYOUT) as smaller:
        for top in range(0, 256, 64):
            smaller.add(top, values[top : top + 64])
    for name in ("ours", "theirs"):
        options = {"overview_resampling": "mode", "compress": "deflate", "blocksize": 128}
        copy(tmp_path / f"{name}.tif", tmp_path / f"{name}.cog.tif", driver="COG", **options)
    ours, theirs = (overviews_of(tmp_path / f"{name}.cog.tif") for name in ("ours", "theirs"))
    assert [level.shape for level in theirs] == [(128, 256), (64, 128)]
    for found, expected in zip(ours, theirs, strict=False):  # ours go on to a smaller block
        np.testing.assert_array_equal(found, expected)


def test_the_most_frequent_of_four_by_its_definition():
    """By counting, on every way that four pixels can be one of two classes, a third or nothing."""
    kinds = np.array([0, 1, 7, IGNORE], np.uint8)
    for four in np.stack(np.meshgrid(*[kinds] * 4), -1).reshape(-1, 4):
        known = four[four != IGNORE].tolist()
        first_to_reach, expected = 0, IGNORE
        for number, value in enumerate(known):
            if known[: number + 1].count(value) > first_to_reach:
                first_to_reach, expected = known[: number + 1].count(value), value
        assert halved_by_mode(four.reshape(2, 2), IGNORE)[0, 0] == expected


@pytest.mark.parametrize("size", [(1, 1), (65, 64), (63, 200), (131, 70)])
def test_overviews_of_odd_sizes_hold_every_pixel(size, tmp_path):
    values = classes_of(size)
    with ModeOverviews(tmp_path / "a.tif", size, BLOCK, IGNORE, LAYOUT) as smaller:
        for top in range(0, size[0], 64):
            smaller.add(top, values[top : top + 64])
    assert len(smaller.sizes) == len(overview_sizes(size, BLOCK)) == (max(size) > BLOCK) + (max(size) > 2 * BLOCK)
    for path in smaller.paths:
        values = halved_by_mode(values, IGNORE)
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(1), values)


def test_an_overview_that_was_written_wrong_is_found(tmp_path):
    values = classes_of((100, 130))
    write_classes(tmp_path / "a.tif", values)
    with ModeOverviews(tmp_path / "a.tif", values.shape, BLOCK, IGNORE, LAYOUT) as smaller:
        smaller.add(0, values)
    smaller.compare(tmp_path / "a.tif")
    with rasterio.open(smaller.paths[1], "r+") as file:
        file.write(np.zeros((1, 1), np.uint8) + 9, 1, window=((3, 4), (5, 6)))
    with pytest.raises(RasterioError, match="overview 2 read back"):
        smaller.compare(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("left", "done"),
    [(16, 0), (200, 336), (400, 600), (1400, 600), (1560, 600), (1640, 600)],
    ids=["start", "rows", "plain", "overview", "cog start", "cog end"],
)
def test_a_full_disk_leaves_one_line_no_map_and_the_rows(left, done, disk_of_4_mib, raster_at, tmp_path, capfd):
    values = np.random.default_rng(0).random((1, 600, 520)).astype(np.float32) * 2
    scene, target = raster_at(tmp_path / "scene.tif", values), disk_of_4_mib / "m.tif"
    filling = disk_of_4_mib / "filling"
    filling.write_bytes(bytes(4096 * KIB - left * KIB))
    with pytest.raises(NoSpaceError, match="No space left on device") as fault:
        made(scene, target)
    assert "\n" not in str(fault.value)
    assert "_tiff" not in capfd.readouterr().err
    left_behind = {path.name for path in disk_of_4_mib.rglob("*")} - {"filling"}
    assert left_behind == ({".m.tif.work", "classes.rows", "identity.json", "journal", "lock"} if done else set())
    filling.unlink()
    found = made(scene, target)
    assert (f"goes on after row {done} of 600" in capfd.readouterr().err) == (done > 0)
    np.testing.assert_array_equal(found, made(scene, tmp_path / "whole.tif"))
    assert {path.name for path in disk_of_4_mib.iterdir()} == {"m.tif", "m.tif.aux.xml"}


def test_what_others_say_while_gdal_writes_is_not_lost(capfd, tmp_path):
    def refused():
        os.write(2, b"_tiffWriteProc: some noise.\na note\n")
        raise RasterioError("see above") from RasterioError("the reason")

    with (
        pytest.raises(InputError, match=r"m\.tif cannot be written \(the reason\)"),
        gdal_writes_named(tmp_path / "m.tif"),
    ):
        refused()
    assert capfd.readouterr().err == "a note\n"


def test_a_loop_over_the_whole_scene_comes_to_the_same_map(tmp_path, raster_at):
    """The bench's peer, with a model whose answers differ between tiles; equal but for ties."""
    values = np.random.default_rng(1).random((1, 150, 201)).astype(np.float32) * 2
    scene = raster_at(tmp_path / "scene.tif", values, blockysize=1)
    ours = made(scene, tmp_path / "ours.tif")
    whole_scene_map(scene, tmp_path / "plain.tif", BLEND, TileModel(), plain_windows(scene, BLEND, 4))
    with rasterio.open(tmp_path / "plain.tif") as file:
        assert (file.read(1) != ours).mean() < 1e-4
    assert len(np.unique(ours)) == 3
    assert class_counts(tmp_path / "ours.tif").tolist() == np.bincount(ours.ravel(), minlength=256).tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_rows_are_read_into_a_part_of_a_larger_array(dtype, tmp_path, raster_at):
    values = (np.random.default_rng(2).random((2, 30, 20)) * 100).astype(dtype)
    values[1, 7, 3] = 0
    with Raster(raster_at(tmp_path / "a.tif", values, nodata=0), RasterSettings()) as raster:
        whole = raster.read()
        larger = type(whole)(np.full((2, 50, 20), 5, np.float32), np.zeros((50, 20), bool))
        part = type(whole)(larger.values[:, 4:34], larger.valid[4:34])
        raster.read_into(raster.whole, part)
    np.testing.assert_array_equal(part.values, np.where(whole.valid, values, 0).astype(np.float32))
    np.testing.assert_array_equal(part.valid, (values != 0).all(0))
    assert (larger.values[:, :4] == 5).all()
    assert (larger.values[:, 34:] == 5).all()

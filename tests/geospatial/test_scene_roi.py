"""Regions: what is no region is named, and what is one covers the pixels that it covers on the ground."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from geospatial.crossearth_sar.segment import _refuse_overlaps, with_negative_values
from geospatial.scene_layers import classes_layer, confidence_layer
from geospatial.scene_place import Place
from geospatial.scene_roi import find_region
from geospatial.scene_stac import stac_item
from mmzoo.errors import InputError

SIZE = 70, 50
SCENE = Path("scene.tif")
SQUARE = [[500000, 4999500], [500300, 4999500], [500300, 5000000], [500000, 5000000], [500000, 4999500]]


def place(code: int = 32633, at: Affine | None = None) -> Place:
    return Place(CRS.from_epsg(code), at or Affine(10, 0, 500000, 0, -10, 5000000), [], None, {})


def polygon(*rings: object) -> dict:
    return {"type": "Polygon", "coordinates": list(rings)}


@pytest.fixture
def region_of(tmp_path):
    """region_of(content, crs) -> the region of a GeoJSON file with that content, an object or text."""

    def find(content: object, crs: str | None = "EPSG:32633"):
        file = tmp_path / "roi.geojson"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return find_region(str(file), crs, place(), SIZE, SCENE)

    return find


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (polygon(SQUARE[:2]), "a ring of 2 points; four at least"),
        (polygon(SQUARE[:4]), "a ring of 4 points; four at least are due, the last like the first"),
        (
            polygon([[500001, 4999991], [500002, 4999991], [500002, 4999992], [500001, 4999991]]),
            "the middle of no pixel",
        ),
        (polygon(SQUARE, SQUARE), "the middle of no pixel"),
        (polygon([5, 6, 7, 5]), "has no list of points"),
        (polygon([[None, 1]] * 4), "has no list of points"),
        (polygon(), "does not lie on the map"),
        ('{"type": "FeatureCollection", "features": [' * 5000, "cannot be read as GeoJSON"),
    ],
)
def test_what_is_no_region_is_named(region_of, content, message):
    for crs in ("EPSG:32633", None):  # also where the points are brought to other coordinates
        with pytest.raises(InputError, match=message if crs else r"--roi .*") as mistake:
            region_of(content, crs)
        assert "\n" not in str(mistake.value)


def test_a_collection_of_geometries_is_a_region(region_of):
    collection = {"type": "GeometryCollection", "geometries": [polygon(SQUARE)]}
    assert region_of(collection).window == region_of(polygon(SQUARE)).window == (0, 0, 50, 30)


def test_what_has_no_coordinates_in_the_scene_is_named():
    for roi in ("15.0,85.14,15.004,95.16", "15.0,45.14,15.004,200"):  # beyond the pole
        with pytest.raises(InputError, match="cannot be brought to the scene's CRS"):
            find_region(roi, "EPSG:4326", place(), SIZE, SCENE)
    with pytest.raises(InputError, match="a transform without area"):
        find_region("0,0,1,1", None, place(at=Affine(0, 0, 5e5, 0, 0, 5e6)), SIZE, SCENE)
    degrees = place(4326, Affine(0.01, 0, 179, 0, -0.01, -17))
    with pytest.raises(InputError, match="at the antimeridian"):
        find_region("700000,8000000,900000,8100000", "EPSG:32760", degrees, (200, 200), SCENE)


def test_edges_are_followed_into_other_coordinates():
    """Between two meridians a parallel is curved in UTM, here by more than 200 px."""
    place_, size = place(at=Affine(10, 0, 300000, 0, -10, 5800000)), (27000, 40000)
    region = find_region("12,50,18,52", "EPSG:4326", place_, size, SCENE)
    xs, ys = transform("EPSG:4326", "EPSG:32633", [15.0], [50.0])[:2]
    column, row = ~place_.transform @ (xs[0], ys[0])  # the lowest point of the southern edge
    assert abs(region.window.top + region.window.height - row) < 2
    above, below = (region.inside(int(row) + shift - region.window.top, 1)[0] for shift in (-3, 2))
    assert above[int(column) - region.window.left]
    assert not below.any()


def test_values_that_begin_with_a_minus_are_values():
    assert with_negative_values(["a.tif", "--roi", "-118,33,-117,34", "--nodata", "-3.4e38", "--json"]) == [
        *("a.tif", "--roi=-118,33,-117,34", "--nodata=-3.4e38", "--json")
    ]
    assert with_negative_values(["--roi", "--json", "-o", "m.tif"]) == ["--roi", "--json", "-o", "m.tif"]


def test_a_file_beside_a_map_takes_no_scene_and_no_other_map():
    layers = [classes_layer(["a", "b"]), confidence_layer(2)]
    scenes = [Path("in/a.tif"), Path("in/a_confidence.tif")]
    with pytest.raises(InputError, match=r"a_confidence\.tif would be"):
        _refuse_overlaps(scenes[1:], [Path("in/a.tif")], layers)
    with pytest.raises(InputError, match=r"a_confidence\.tif would be"):
        _refuse_overlaps(scenes, [Path("out/a.tif"), Path("out/a_confidence.tif")], layers)
    _refuse_overlaps(scenes, [Path("out/a.tif"), Path("out/b.tif")], layers)


def test_a_map_across_the_antimeridian_has_a_box_that_crosses_it():
    across = place(32760, Affine(1000, 0, 700000, 0, -1000, 8100000))
    item = stac_item("m", {}, across, (100, 200), ["a"], {}, "2020-11-07T02:00:00Z")
    west, south, east, north = item["bbox"]
    assert item["geometry"]["type"] == "MultiPolygon"
    assert 178 < west < 180
    assert -180 < east < -179
    assert -18.1 < south < north < -17.1
    inside = stac_item("m", {}, place(), SIZE, ["a"], {}, "2020-11-07T02:00:00Z")
    np.testing.assert_allclose(inside["bbox"], [15.0, 45.148, 15.0064, 45.154], atol=1e-3)

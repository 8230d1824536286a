"""Class masks against their table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from geospatial.class_masks import IGNORE, ClassMask, ClassTable
from geospatial.raster import Window
from mmzoo.errors import InputError

TABLE = ClassTable.of({10: "field", 20: "city", 0: "water"})
FILE = Path("mask.tif")


def test_ids_become_places_in_the_table():
    ids = np.array([[0, 10], [20, 255]], np.uint8)
    np.testing.assert_array_equal(TABLE.labels(ids, FILE), [[2, 0], [1, IGNORE]])
    assert TABLE.names == ("field", "city", "water")


def test_ids_out_of_the_table_are_named_with_the_file():
    ids = np.array([[0, 11], [-3, 11]], np.int16)
    with pytest.raises(InputError, match=r"mask\.tif: 3 pixels have the ids -3, 11, which are not .* \(10, 20, 0;"):
        TABLE.labels(ids, FILE)


def test_nodata_of_the_file_is_ignored_unless_it_is_a_class():
    ids = np.array([[0, 7]], np.uint16)
    np.testing.assert_array_equal(TABLE.labels(ids, FILE, nodata=7), [[2, IGNORE]])
    np.testing.assert_array_equal(TABLE.labels(ids[:, :1], FILE, nodata=0), [[2]])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "maps ids to names"),
        ({"a": "b"}, "whole numbers"),
        ({255: "sea"}, "also one to ignore"),
        ({number: str(number) for number in range(300, 600)}, "Give 1 to 255"),
        ("none.json", "cannot be read"),
    ],
)
def test_tables_that_are_none(given, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        ClassTable.of(tmp_path / given if isinstance(given, str) else given)


@pytest.mark.parametrize(("name", "text"), [("c.json", '{"1": "land", "2": "sea"}'), ("c.yaml", "1: land\n2: sea\n")])
def test_a_table_from_a_file(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert ClassTable.of(tmp_path / name) == ClassTable((1, 2), ("land", "sea"))


def test_a_mask_is_read_by_windows(raster_at, tmp_path):
    ids = np.array([[[0, 10, 20], [9, 0, 10]]], np.uint8)
    mask = ClassMask(raster_at(tmp_path / "m.tif", ids, None, nodata=9), TABLE, (2, 3), FILE)
    np.testing.assert_array_equal(mask.read(Window(0, 0, 2, 2)), [[2, 0], [IGNORE, 2]])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((3, 2, 3), np.uint8), "one band of class ids, not 3"),
        (np.zeros((1, 2, 3), np.float32), "whole numbers, not float32"),
        (np.zeros((1, 3, 2), np.uint8), r"has 3 x 2 px and its raster mask.tif 2 x 3"),
    ],
)
def test_masks_that_do_not_fit(raster_at, tmp_path, values, reason):
    with pytest.raises(InputError, match=reason):
        ClassMask(raster_at(tmp_path / "m.tif", values, None), TABLE, (2, 3), FILE)


def test_ids_have_no_scale(raster_at, tmp_path):
    path = raster_at(tmp_path / "m.tif", np.zeros((1, 2, 3), np.uint8), None)
    with rasterio.open(path, "r+") as opened:
        opened.scales = [0.5]
    with pytest.raises(InputError, match="declares a scale or an offset"):
        ClassMask(path, TABLE, (2, 3), FILE)

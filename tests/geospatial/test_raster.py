"""Reading rasters: what has data, in which domain, and which inputs are refused."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import from_origin

from geospatial.raster import Raster, RasterSettings, Window, tiles, write_raster
from mmzoo.errors import InputError


def ramp(bands: int = 1, height: int = 6, width: int = 8, dtype=np.float32) -> np.ndarray:
    return (np.arange(bands * height * width).reshape(bands, height, width) + 1).astype(dtype)


@pytest.mark.parametrize("bands", range(1, 14))
def test_one_to_thirteen_bands(raster_at, tmp_path, bands):
    values = ramp(bands)
    with Raster(raster_at(tmp_path / "a.tif", values)) as raster:
        read = raster.read(Window(1, 2, 3, 4))
        assert (raster.height, raster.width, raster.domain) == (6, 8, "amplitude")
    np.testing.assert_array_equal(read.values, values[:, 1:4, 2:6])
    assert read.values.dtype == np.float32
    assert read.valid.all()


def test_chosen_bands_come_in_the_order_asked_for(raster_at, tmp_path):
    values = ramp(14)
    path = raster_at(tmp_path / "a.tif", values)
    with Raster(path, RasterSettings(bands=(14, 2))) as raster:
        np.testing.assert_array_equal(raster.read().values, values[[13, 1]])
    with pytest.raises(InputError, match="14 bands, at most 13"):
        Raster(path)
    with pytest.raises(InputError, match="has 14 bands, so there is no band 15"):
        Raster(path, RasterSettings(bands=(15,)))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_every_stored_dtype_becomes_float32(raster_at, tmp_path, dtype):
    with Raster(raster_at(tmp_path / "a.tif", ramp(dtype=dtype))) as raster:
        np.testing.assert_array_equal(raster.read().values, ramp())
        assert raster.dtype == dtype


@pytest.mark.parametrize(
    ("stored", "nodata", "setting", "expected"),
    [
        ([1, np.nan, 0, 4], None, "file", [1, 0, 1, 1]),  # no nodata value: only what is not finite has no data
        ([1, np.nan, 0, 4], float("nan"), "file", [1, 0, 1, 1]),
        ([1, np.nan, 0, 4], 0, "file", [1, 0, 0, 1]),
        ([1, np.inf, 0, 4], 0, None, [1, 0, 1, 1]),
        ([1, 2, 0, 4], 0, 4.0, [1, 1, 1, 0]),  # the setting replaces the file's value
        ([1, 2, 0, -np.inf], 2, float("nan"), [1, 1, 1, 0]),
    ],
)
def test_what_has_no_data(raster_at, tmp_path, stored, nodata, setting, expected):
    values = np.array(stored, np.float32).reshape(1, 2, 2)
    path = raster_at(tmp_path / "a.tif", values, nodata=nodata)
    with Raster(path, RasterSettings(nodata=setting)) as raster:
        read = raster.read()
    np.testing.assert_array_equal(read.valid.reshape(-1), np.array(expected, bool))
    np.testing.assert_array_equal(read.values[0][~read.valid], 0)
    np.testing.assert_array_equal(read.values[0][read.valid], values[0][read.valid])


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        *product(["uint8", "int16", "uint32", "float32", "float64"], [0, 3, 255]),
        *product(["float32", "float64"], [2.5, np.nan]),
    ],
)
def test_nodata_values_say_what_masks_would(raster_at, tmp_path, dtype, nodata):
    values = np.random.default_rng(0).integers(0, 5, (2, 20, 30)).astype(dtype)
    if values.dtype.kind == "f":
        near = np.nextafter(np.float32(2.5), np.float32(3))  # which GDAL takes for 2.5
        values[0, 3, 4], values[1, 5, 6], values[0, 9, 8:10] = np.nan, np.inf, (2.5, near)
    path = raster_at(tmp_path / "a.tif", values, nodata=nodata)
    with Raster(path) as raster, rasterio.open(path) as file:
        expected = (file.read_masks() != 0).all(0) & np.isfinite(values).all(0)
        np.testing.assert_array_equal(raster.read().valid, expected)


def test_a_mask_band_and_a_hole_in_one_band_are_respected(raster_at, tmp_path):
    path = raster_at(tmp_path / "a.tif", ramp(2))
    mask = np.full((6, 8), 255, np.uint8)
    mask[0] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    with Raster(path) as raster:
        np.testing.assert_array_equal(raster.read().valid, mask > 0)
    holed = ramp(2)
    holed[1, 2, 3] = np.nan
    with Raster(raster_at(tmp_path / "b.tif", holed)) as raster:
        valid = raster.read().valid
    assert valid.sum() == 47
    assert not valid[2, 3]


def test_the_domain_comes_from_the_setting_then_tags_then_the_sidecar_and_is_never_guessed(raster_at, tmp_path):
    path = raster_at(tmp_path / "a.tif", ramp(2), domain=None)
    with pytest.raises(InputError, match="does not say in which domain"):
        Raster(path)
    (tmp_path / "a.tif.json").write_text(json.dumps({"domain": "dB"}))
    assert Raster(path).domain == "db"
    with rasterio.open(path, "r+") as file:
        file.update_tags(1, DOMAIN="intensity")
    assert Raster(path).domain == "intensity"
    assert Raster(path, RasterSettings(domain="log1p")).domain == "log1p"
    with rasterio.open(path, "r+") as file:
        file.update_tags(2, domain="db")
    with pytest.raises(InputError, match="bands are in several domains"):
        Raster(path)
    assert Raster(path, RasterSettings(bands=(2,))).domain == "db"
    with pytest.raises(InputError, match="Did you mean 'amplitude'"):
        Raster(path, RasterSettings(domain="amplitud"))


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
def test_complex_values_are_refused_or_become_what_was_asked_for(raster_at, tmp_path, dtype):
    values = np.full((1, 4, 4), 3 + 4j, np.complex64)
    path = tmp_path / "slc.tif"
    with rasterio.open(path, "w", driver="GTiff", count=1, height=4, width=4, dtype=dtype) as file:
        file.write(values)
    with pytest.raises(InputError, match="complex values"):
        Raster(path, RasterSettings(domain="amplitude"))
    for kind, value in (("amplitude", 5), ("intensity", 25)):
        with Raster(path, RasterSettings(complex_as=kind)) as raster:
            assert raster.domain == kind
            np.testing.assert_allclose(raster.read().values, value)
    with pytest.raises(InputError, match="gives amplitude, not db"):
        Raster(path, RasterSettings(complex_as="amplitude", domain="db"))
    with pytest.raises(InputError, match="holds no complex values"):
        Raster(raster_at(tmp_path / "real.tif", ramp()), RasterSettings(complex_as="amplitude"))


def test_pictures_without_coordinates_are_rasters_too(tmp_path):
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / "a.png")
    with Raster(tmp_path / "a.png", RasterSettings(domain="display8")) as raster:
        np.testing.assert_array_equal(raster.read().values[0], np.arange(48).reshape(6, 8))


def test_absent_damaged_and_outside_are_one_line_each(raster_at, tmp_path):
    with pytest.raises(InputError, match="there is no raster"):
        Raster(tmp_path / "none.tif")
    path = raster_at(tmp_path / "a.tif", np.random.default_rng(0).random((1, 64, 64)), compress="deflate")
    with Raster(path) as raster, pytest.raises(InputError, match="leaves the raster of 64 x 64 px"):
        raster.read(Window(60, 0, 8, 8))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="cannot be read as a raster"):
        Raster(path).read()
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(InputError, match="cannot be read as a raster") as caught:
        Raster(tmp_path / "text.tif")
    assert "\n" not in str(caught.value)


@given(height=st.integers(1, 70), width=st.integers(1, 70), size=st.integers(1, 32))
def test_tiles_cover_every_pixel_and_stay_inside(height, width, size):
    seen = np.zeros((height, width), int)
    for window in tiles(height, width, size):
        assert window.height == min(size, height)
        assert window.width == min(size, width)
        part = seen[window.top : window.top + window.height, window.left : window.left + window.width]
        assert part.shape == window[2:]
        part += 1
    assert seen.min() == 1
    assert len(tiles(height, width, size)) == -(-height // size) * -(-width // size)


def test_a_written_raster_keeps_its_place(raster_at, tmp_path):
    with Raster(raster_at(tmp_path / "a.tif", ramp())) as raster:
        write_raster(tmp_path / "b.tif", ramp(2, dtype=np.uint8), raster, nodata=255)
        with rasterio.open(tmp_path / "b.tif") as file:
            assert (file.crs, file.transform, file.nodata) == (raster.crs, raster.transform, 255)
            np.testing.assert_array_equal(file.read(), ramp(2, dtype=np.uint8))
        with pytest.raises(InputError, match="cannot be written"):
            write_raster(tmp_path / "none" / "b.tif", ramp(), raster)


def test_values_beyond_float32_are_no_data(raster_at, tmp_path):
    file = raster_at(tmp_path / "a.tif", np.array([[[1.0, 1e300, -1e39, 2.0]]]))
    with Raster(file) as raster:
        pixels = raster.read()
    assert pixels.valid.tolist() == [[True, False, False, True]]
    assert pixels.values.tolist() == [[[1.0, 0.0, 0.0, 2.0]]]


def test_scale_and_offset_of_the_file_are_applied_and_nodata_is_of_what_is_stored(raster_at, tmp_path):
    file = raster_at(tmp_path / "a.tif", np.array([[[-1200, 0, -32768]]], np.int16), "db", nodata=-32768)
    with rasterio.open(file, "r+") as opened:
        opened.scales, opened.offsets = (0.01,), (1.0,)
    with Raster(file) as raster:
        pixels = raster.read()
    assert pixels.values.tolist() == [[[-11.0, 1.0, 0.0]]]
    assert pixels.valid.tolist() == [[True, True, False]]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"crs": "EPSG:32634"}, "is in EPSG:32634 and .* in EPSG:32633"),
        ({"transform": from_origin(500006, 5000000, 10, 10)}, "column 0, row 0 is 0.6 columns and -?0.0 rows away"),
        ({"transform": from_origin(500000, 5000000, 12, 10)}, "column 8, row 0 is 1.6 columns"),
        ({"transform": from_origin(500004, 5000000, 10, 10)}, None),
    ],
)
def test_rasters_of_another_place_are_refused(raster_at, tmp_path, options, reason):
    values = np.ones((1, 6, 8), np.float32)
    first, second = raster_at(tmp_path / "a.tif", values), raster_at(tmp_path / "b.tif", values)
    with rasterio.open(second, "r+") as opened:
        for name, value in options.items():
            setattr(opened, name, value)
    with Raster(first) as one, Raster(second) as other:
        if reason is None:
            one.refuse_other_place(other)
        else:
            with pytest.raises(InputError, match=reason):
                one.refuse_other_place(other)

"""Samples come out of shards as they went in, decoded by their types, and damage is named."""

from __future__ import annotations

import io
import json
import os
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_engine.lint import lint_folder
from data_engine.record_members import pack_record, unpack_record
from data_engine.stored_sample import ROLES, Region, StoredFile, StoredSample, Turn
from mmzoo.errors import InputError
from tests.data_engine.conftest import encode, picture
from tests.data_engine.made_sources import ListSource, built

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
COORDINATE = st.floats(-1e4, 1e4)
POINT = st.tuples(COORDINATE, COORDINATE)
BOX = st.tuples(st.integers(-9, 4), st.integers(-9, 4), st.integers(5, 99), st.integers(5, 99))  # of 5 x 4 px
MIDDLE = st.just((2.0, 2.0))
META = st.dictionaries(
    TEXT, st.none() | st.integers() | TEXT | st.lists(st.floats(allow_nan=False, allow_infinity=False))
)
REGION = st.builds(
    Region,
    label=TEXT,
    box=st.none() | BOX,
    quad=st.none() | st.tuples(MIDDLE, POINT, POINT, POINT),
    polygons=st.lists(st.tuples(MIDDLE, POINT, POINT) | st.tuples(MIDDLE, *[POINT] * 4), max_size=2).map(tuple),
    rle=st.none() | st.just({"size": [4, 5], "counts": [3, 17]}),
    ignore=st.booleans(),
    image=st.integers(0, 2),
)
IMAGE = st.builds(
    lambda seed, form: StoredFile(f"{seed}.{form}", data=encode(picture(seed, 4, 5), form)),
    st.integers(0, 5),
    st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"]),
)
MASK = st.integers(0, 255).map(
    lambda value: StoredFile("mask.png", data=encode(np.full((4, 5), value, np.uint8), "PNG"))
)


VIRTUAL = b"""<VRTDataset rasterXSize="5" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1">
<SimpleSource><SourceFilename>/etc/hostname</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""


def raster(seed: int = 0, bands: int = 2, crs: str | None = "EPSG:3395", nodata: float | None = -1.0) -> bytes:
    values = np.random.default_rng(seed).normal(size=(bands, 4, 5)).astype(np.float32)
    transform = rasterio.Affine(10, 0, 500, 0, -10, 900)
    options = {"driver": "GTiff", "width": 5, "height": 4, "count": bands, "dtype": "float32"}
    with rasterio.MemoryFile() as file:
        with file.open(**options, crs=crs, nodata=nodata, transform=transform) as target:
            target.write(values)
        return bytes(file.read())


SAMPLE = st.builds(
    StoredSample,
    key=st.just(""),
    source=st.just(""),
    images=st.lists(IMAGE, max_size=3).map(tuple),
    rasters=st.lists(st.integers(0, 3).map(lambda seed: StoredFile(f"{seed}.tif", data=raster(seed))), max_size=2).map(
        tuple
    ),
    mask=st.none() | MASK,
    conversation=st.lists(st.builds(Turn, st.sampled_from(ROLES), TEXT), max_size=3).map(tuple),
    regions=st.lists(REGION, max_size=2).map(tuple),
    text=st.none() | TEXT,
    number=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    license=st.none() | TEXT,
    origin=TEXT,
    meta=META,
).map(lambda sample: replace(sample, regions=tuple(in_its_images(region, sample) for region in sample.regions)))


def in_its_images(region: Region, sample: StoredSample) -> Region:
    return replace(region, image=min(region.image, max(0, len(sample.images or sample.rasters) - 1)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(samples=st.lists(SAMPLE, min_size=1, max_size=5))
def test_samples_come_back_as_they_were(tmp_path_factory, samples):
    folder = tmp_path_factory.mktemp("round") / "shards"
    source = ListSource(name="made", given=tuple(samples))
    reader = built(folder, source, shard_bytes=8_000)
    for row, sample in enumerate(source.samples()):
        assert reader.stored(row) == sample
        assert reader.key(row) == sample.key
        facts = reader.index.facts(row)
        assert facts.text_characters == sample.text_characters
        assert facts.image_sizes == [(5, 4)] * len(sample.images)
        assert sum(field.startswith("image") for field in facts.bytes) == len(sample.images)


@pytest.fixture
def sample() -> StoredSample:
    mask = np.arange(20, dtype=np.uint8).reshape(4, 5)
    return StoredSample(
        key="made-1",
        source="made",
        images=tuple(StoredFile(f"{seed}.png", data=encode(picture(seed, 4, 5), "PNG")) for seed in (1, 2)),
        rasters=(StoredFile("a.tif", data=raster(7)),),
        mask=StoredFile("m.png", data=encode(mask, "PNG")),
        conversation=(Turn("user", "<image> and <image>?"), Turn("assistant", "both")),
        regions=(Region("car", box=(0, 1, 2, 3)),),
        number=3.5,
    )


def test_a_reader_decodes_each_field_by_its_type(tmp_path, sample):
    reader = built(tmp_path / "shards", ListSource(name="made", given=(sample, replace(sample, images=(), mask=None))))
    full = reader.sample(0)
    assert np.array_equal(full.fields["image"], picture(1, 4, 5))
    assert np.array_equal(full.fields["image1"], picture(2, 4, 5))
    assert np.array_equal(full.fields["mask"], np.arange(20).reshape(4, 5))
    assert full.fields["raster"].dtype == np.float32
    assert full.fields["conversation"] == sample.conversation
    assert full.fields["number"] == 3.5
    assert full.meta["rasters"][0]["crs"] == "EPSG:3395"
    assert full.meta["rasters"][0]["transform"] == [10, 0, 500, 0, -10, 900]
    assert full.meta["rasters"][0]["nodata"] == -1.0
    assert set(reader.sample(1).fields) == {"raster", "conversation", "regions", "text", "number"}


def test_shards_are_plain_webdataset(tmp_path, sample):
    from webdataset.compat import WebDataset

    built(tmp_path / "shards", ListSource(name="made", given=(sample,)))
    found = list(WebDataset(str(tmp_path / "shards/shard-000000.tar"), shardshuffle=False))
    assert set(found[0]) - {"__key__", "__url__", "__local_path__"} == {
        *("json", "png", "image1.png", "mask.png", "raster.tif")
    }
    assert found[0]["png"] == sample.images[0].data
    assert json.loads(found[0]["json"])["conversation"][1] == {"role": "assistant", "text": "both"}


def test_lint_finds_what_was_changed_in_a_record(tmp_path, sample):
    reader = built(tmp_path / "shards", ListSource(name="made", given=(sample,)))
    assert lint_folder(tmp_path / "shards") == []
    path, offset, size = reader.index.place(0, "raster")
    with path.open("r+b") as tar:
        tar.seek(offset + size - 40)
        tar.write(b"\0" * 40)
    lines = [finding.line() for finding in lint_folder(tmp_path / "shards")]
    assert any(f"key made-000000001, offset {offset}: json says sha256" in line for line in lines)


def test_lint_names_a_file_that_the_json_lists_and_the_tar_lacks(tmp_path, sample):
    record = pack_record(sample)
    with tarfile.open(tmp_path / "shard-000000.tar", "w") as tar:
        for field, (extension, data) in record.members.items():
            info = tarfile.TarInfo(f"{sample.key}.{extension}")
            info.size = len(data)
            if field != "image1":
                tar.addfile(info, io.BytesIO(data))
    lines = [finding.line() for finding in lint_folder(tmp_path)]
    assert any("the json lists image1, the sample has no such member" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": (StoredFile("a.png", data=b"\x89PNG\r\n\x1a\nnothing"),)}, "a.png: "),
        ({"images": (StoredFile("a.png", data=b"text"),)}, "a.png: not an image"),
        ({"mask": StoredFile("m.png", data=encode(picture(1, 4, 5), "PNG"))}, "m.png: a mask has one integer a pixel"),
        ({"mask": StoredFile("m.png", data=encode(np.zeros((4, 6), np.uint8), "PNG"))}, "mask m.png is 6 x 4 px"),
        ({"rasters": (StoredFile("r.tif", data=b"II*\0cut"),)}, "r.tif: not a raster that can be read"),
        (
            {"rasters": (StoredFile("a.tif", data=raster()), StoredFile("b.tif", data=raster(crs="EPSG:4326")))},
            "b.tif and a.tif lie on different grids: crs",
        ),
        ({"rasters": (StoredFile("r.tif", data=b""),)}, "r.tif: not a raster that can be read: it is empty"),
        ({"rasters": (StoredFile("r.tif", data=VIRTUAL),)}, "r.tif: not a raster that can be read"),
        ({"meta": {"day": object()}}, "cannot be written as JSON"),
        ({"stated": (4, 5)}, r"1\.png is 5 x 4 px, its annotations are of one of 4 x 5"),
        ({"regions": (Region("car", image=2),)}, "'car' is in image 2, there are 2"),
        ({"regions": (Region("car", box=(6, 0, 9, 2)),)}, r"'car' at 6, 0, 9, 2 lies outside of 1\.png, 5 x 4 px"),
        (
            {"regions": (Region("car", quad=((0, -9), (1, -9), (1, -2), (0, -2))),)},
            "'car' at 0, -9, 1, -2 lies outside",
        ),
    ],
)
def test_damage_is_named(sample, change, message):
    with pytest.raises(InputError, match=message):
        pack_record(replace(sample, **change))


def test_an_absent_file_is_named(sample, tmp_path):
    with pytest.raises(InputError, match=r"gone\.jpg: No such file"):
        pack_record(replace(sample, images=(StoredFile("gone.jpg", tmp_path / "gone.jpg"),)))


def test_a_jpeg_is_no_mask(sample):
    stream = io.BytesIO()
    Image.new("L", (5, 4)).save(stream, "JPEG")
    with pytest.raises(InputError, match="JPEG has no exact values"):
        pack_record(replace(sample, mask=StoredFile("m.jpg", data=stream.getvalue())))


def test_a_pipe_is_no_file(sample, tmp_path):
    os.mkfifo(tmp_path / "p.jpg")
    with pytest.raises(InputError, match=r"p\.jpg: not a regular file"):
        pack_record(replace(sample, images=(StoredFile("p.jpg", tmp_path / "p.jpg"),), regions=()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": 5}, "5 where a text is due"),
        ({"license": {"id": 1}}, "where a text is due"),
        ({"conversation": [{"role": "user", "text": 5}]}, "5 where a text is due"),
        ({"regions": [{"label": []}]}, "where a text is due"),
        ({"regions": [{"label": "car", "box": [0, 0, 10**400, 2]}]}, "not a finite number"),
        ({"meta": [1]}, "meta is no object"),
        ({"number": "3"}, "number is none"),
    ],
)
def test_a_json_with_values_of_other_types_is_refused(sample, change, message):
    members = {field: data for field, (_, data) in pack_record(sample).members.items()}
    content = {**json.loads(members["json"]), **change}
    with pytest.raises(InputError, match=message):
        unpack_record("a", {**members, "json": json.dumps(content).encode()})


def test_a_json_of_another_schema_is_refused():
    with pytest.raises(InputError, match="schema version 9"):
        unpack_record("a", {"json": b'{"schema_version": 9}'})


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ({"box": (4, 0, 2, 2)}, "ends before it starts"),
        ({"box": (0, 0, float("nan"), 2)}, "not a finite number"),
        ({"box": (0, 0, 10**400, 2)}, "not a finite number"),
        ({"polygons": (((0, 0), (1, 1)),)}, "fewer than 3 corners"),
    ],
)
def test_impossible_shapes_are_refused(region, message):
    with pytest.raises(ValueError, match=message):
        Region("car", **region)

"""The page shows what the shards hold, needs nothing beside it, and runs nothing that a data set says."""

from __future__ import annotations

import re

import numpy as np
import pytest

from data_engine.preview import main
from data_engine.preview_sample import outlines, shown
from data_engine.raster_picture import first_nodata, raster_picture
from data_engine.records import Sample
from mmzoo.errors import InputError


def test_lines_of_a_region():
    region = {
        "label": "ship",
        "box": [1, 2, 5, 7],
        "quad": [[0, 0], [4, 1], [3, 5.5], [-1, 4]],
        "polygons": [[[1, 1], [2, 1], [2, 2]]],
        "ignore": True,
    }
    assert [outline.points for outline in outlines(region)] == ["1,2 5,2 5,7 1,7", "0,0 4,1 3,5.5 -1,4", "1,1 2,1 2,2"]
    assert len({outline.colour for outline in outlines(region)}) == 3
    assert all(outline.ignore for outline in outlines(region))


def test_a_record_with_mask_and_conversation():
    meta = {
        "conversation": [{"role": "user", "text": "<image> where?"}, {"role": "assistant", "text": "there"}],
        "regions": [{"label": "ship", "box": [0, 0, 2, 2]}, {"label": "ship", "box": [1, 1, 3, 3], "image": 1}],
    }
    meta["meta"] = {"classes": {"0": "land", "1": "water"}}
    images = {name: np.zeros((6, 8, 3), np.uint8) for name in ("image", "image1")}
    found = shown(Sample("k", "s", {**images, "mask": np.eye(6, 8, dtype=np.int32)}, meta))
    first, second = found.pictures
    assert (first.width, first.height, first.labels, second.labels) == (8, 6, "ship 1", "ship 1")
    assert (first.outlines[0].points, second.outlines[0].points) == ("0,0 2,0 2,2 0,2", "1,1 3,1 3,3 1,3")
    assert found.turns == (("user", "<image> where?"), ("assistant", "there"))
    assert first.mask.startswith("data:image/png")
    assert [words for _, words in first.classes] == ["0 land 87.5%", "1 water 12.5%"]
    assert first.classes[0][0] == "transparent" != first.classes[1][0]
    assert second.mask == ""


def test_rasters_are_pictures_and_a_class_map_lies_over_the_scene():
    scene = np.arange(48, dtype=np.float32).reshape(1, 6, 8)
    label = np.eye(6, 8, dtype=np.uint8)[None]
    entries = [{"crs": "EPSG:3395", "nodata": None}, {"crs": "EPSG:3395", "nodata": 255.0}]
    meta = {"rasters": entries, "meta": {"roles": ["scene", "label"]}}
    found = shown(Sample("k", "s", {"raster": scene, "raster1": label}, meta))
    assert [picture.caption for picture in found.pictures] == [
        "scene, 1 x float32, EPSG:3395",
        "label, 1 x uint8, EPSG:3395",
    ]
    assert [words for _, words in found.pictures[0].classes] == ["0 87.5%", "1 12.5%"]
    many = {f"raster{number or ''}": scene for number in range(9)}
    crowd = shown(Sample("k", "s", many, {"rasters": entries[:1] * 9}))
    assert (len(crowd.pictures), crowd.more) == (6, 3)


def test_a_raster_is_stretched_where_it_has_data():
    values = np.linspace(-25, 0, 101)
    band = np.append(values, [np.nan, np.inf, -9999]).reshape(1, 4, 26)
    shown_values = raster_picture(band, -9999.0).reshape(-1, 3)
    expected = np.rint(np.append((np.arange(101) - 2) / 96, [0, 0, 0]).clip(0, 1) * 255)
    assert (shown_values == expected[:, None]).all()
    assert (raster_picture(band * (1 + 1j), -9999.0)[0, 0] == raster_picture(-band)[0, 0]).all()
    assert not raster_picture(np.full((1, 2, 2), np.nan)).any()
    assert not raster_picture(np.full((1, 2, 2), 7)).any()
    colours = raster_picture(np.stack([values, -values, values, values]).reshape(4, 1, 101))[0]
    assert colours[0].tolist() == [0, 255, 0]
    assert first_nodata({"rasters": [{"nodata": "-inf"}]}) == -np.inf
    assert first_nodata({}) is None


def test_the_page(shard_folder, tmp_path, spoil):
    folder = shard_folder(10)
    spoil(folder, [0])
    out = tmp_path / "page.html"
    assert main([str(folder), "-o", str(out), "--samples", "4"], "preview") == 0
    text = out.read_text()
    assert text.count('class="sample"') == 4
    assert text.count("data:image/jpeg") == 3
    assert "broken: not an image" in text
    assert "<td>sources</td><td>photos 10</td>" in text
    assert not re.search(r"<script|https?://|\bsrc=\"(?!data:)", text)
    with pytest.raises(InputError, match="cannot write"):
        main([str(folder), "-o", str(tmp_path / "no" / "page.html")], "preview")


def test_what_a_data_set_says_is_escaped(shard_folder, tmp_path, monkeypatch):
    folder = shard_folder(2)
    evil = "</div><script>alert(1)</script>"
    meta = {"conversation": [{"role": 'user" onload="x', "text": evil}], "schema_version": 1, "license": evil}
    monkeypatch.setattr("data_engine.reader.ShardReader.parsed", lambda *_: meta)
    assert main([str(folder), "-o", str(tmp_path / "page.html")], "preview") == 0
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text
    assert 'onload="' not in text
    assert "&lt;script&gt;" in text


def test_a_mask_of_many_classes_says_how_many_are_not_listed():
    values = np.arange(20, dtype=np.int32).reshape(4, 5)
    meta = {"schema_version": 2, "source": "s", "origin": "o", "regions": [], "conversation": []}
    fields = {"image": np.zeros((4, 5, 3), np.uint8), "mask": values}
    classes = shown(Sample("k", "s", fields, meta)).pictures[0].classes
    assert len(classes) == 17
    assert classes[-1] == ("transparent", "and 4 more")

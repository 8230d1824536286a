"""The page shows what the shards hold, needs nothing beside it, and runs nothing that a data set says."""

from __future__ import annotations

import re

import numpy as np
import pytest

from data_engine.preview import main, outlines, shown
from data_engine.records import Sample
from mmzoo.errors import InputError


def test_lines_of_a_region():
    region = {
        "label": "ship",
        "box": [1, 2, 5, 7],
        "quad": [[0, 0], [4, 1], [3, 5.5], [-1, 4]],
        "polygons": [[[1, 1], [2, 1], [2, 2]]],
    }
    assert [outline.points for outline in outlines(region)] == ["1,2 5,2 5,7 1,7", "0,0 4,1 3,5.5 -1,4", "1,1 2,1 2,2"]
    assert len({outline.colour for outline in outlines(region)}) == 3


def test_a_record_with_mask_and_conversation():
    meta = {
        "conversation": [{"role": "user", "text": "<image> where?"}, {"role": "assistant", "text": "there"}],
        "regions": [{"label": "ship", "box": [0, 0, 2, 2]}, {"label": "ship", "box": [1, 1, 3, 3], "image": 1}],
    }
    fields = {"image": np.zeros((6, 8, 3), np.uint8), "mask": np.eye(6, 8, dtype=np.int32)}
    found = shown(Sample("k", "s", fields, meta))
    assert (found.width, found.height, found.labels) == (8, 6, "ship 1")
    assert found.turns == (("user", "<image> where?"), ("assistant", "there"))
    assert found.mask.startswith("data:image/png")


def test_the_page(shard_folder, tmp_path, spoil):
    folder = shard_folder(10)
    spoil(folder, [0])
    out = tmp_path / "page.html"
    assert main([str(folder), "-o", str(out), "--samples", "4"], "preview") == 0
    text = out.read_text()
    assert text.count('class="sample"') == 4
    assert text.count("data:image/jpeg") == 3
    assert "broken: not an image" in text
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

"""Counts and histograms of a shard folder are those of its samples."""

from __future__ import annotations

import json

import numpy as np

from data_engine.index import ShardIndex
from data_engine.reader import ShardReader
from data_engine.stats import main, summary


def test_a_summary():
    found = summary(np.array([0, 1, 2, 3, 4, 100, 0]))
    assert found == {
        "count": 5,
        "sum": 110,
        "min": 1,
        "median": 3,
        "p95": 4,
        "max": 100,
        "histogram": {"1-1": 1, "2-3": 2, "4-7": 1, "8-15": 0, "16-31": 0, "32-63": 0, "64-127": 1},
    }


def test_the_command(shard_folder, capsys):
    folder = shard_folder(10)
    assert main([str(folder), "--json"], "stats") == 0
    found = json.loads(capsys.readouterr().out)
    index = ShardIndex.open(folder)
    reader = ShardReader(index)
    assert found["samples"] == 10 == sum(found["splits"].values())
    assert found["licences"] == {"not stated": 10}
    assert found["sources"] == {"photos": 10}
    assert found["histograms"]["picture_px"]["histogram"] == {"128-255": 10}
    assert found["histograms"]["image_bytes"]["sum"] == sum(len(reader.raw(row, "image")) for row in range(10))
    assert "text_characters" not in found["histograms"], "there is no text"
    assert main([str(folder)], "stats") == 0
    text = capsys.readouterr().out
    assert "128-255         10  " + "#" * 40 in text

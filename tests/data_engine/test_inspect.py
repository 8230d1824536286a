from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from data_engine.index import ShardIndex
from data_engine.look import inspect, size_histogram
from data_engine.reader import ShardReader
from mmzoo.errors import InputError


@pytest.fixture
def folder(shard_folder):
    return shard_folder(10)


def test_text_and_json(folder, capsys):
    assert inspect([str(folder)], "inspect") == 0
    text = capsys.readouterr().out
    assert "JPEG 6, PNG 4" in text
    assert "16-31         10  ####" in text
    assert inspect([str(folder), "--json"], "inspect") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["samples"] == sum(printed["splits"].values()) == 10
    assert printed["longer_side_px"] == {"16-31": 10}
    assert printed["first_keys"] == [ShardIndex.open(folder).key(row) for row in range(5)]
    assert printed["bytes"] == sum(path.stat().st_size for path in folder.glob("*.tar"))


def test_one_sample(folder, tmp_path, capsys):
    index = ShardIndex.open(folder)
    key, out = index.key(2), tmp_path / "picture.png"
    assert inspect([str(folder), "--sample", key, "--out", str(out)], "inspect") == 0
    assert json.loads(capsys.readouterr().out)["key"] == key
    np.testing.assert_array_equal(np.asarray(Image.open(out)), ShardReader(index).sample(2).fields["image"])


def test_mistakes(folder, tmp_path):
    key = ShardIndex.open(folder).key(0)
    with pytest.raises(InputError, match=f"Did you mean '{key}'"):
        inspect([str(folder), "--sample", key[:-2]], "inspect")
    with pytest.raises(InputError, match="--out needs --sample"):
        inspect([str(folder), "--out", "x.png"], "inspect")
    with pytest.raises(InputError, match="cannot write"):
        inspect([str(folder), "--sample", key, "--out", str(tmp_path / "absent" / "x.png")], "inspect")
    with pytest.raises(InputError, match="no shard folder"):
        inspect([str(tmp_path / "absent")], "inspect")


def test_histogram():
    assert size_histogram(np.array([1, 2, 3, 8, 15, 16])) == {"1-1": 1, "2-3": 2, "4-7": 0, "8-15": 2, "16-31": 1}

"""`where` takes the rows with given values, and says what is wrong with it."""

from __future__ import annotations

import json

import pytest

from data_engine.build_config import parse_config
from data_engine.build_records import build_records
from data_engine.index import ShardIndex
from data_engine.reader import ShardReader
from mmzoo.errors import InputError

ROWS = [("train", "land", 1), ("val", "land", 2), ("train", "sea", 3), ("val", "sea", 4), ("train", "air", 5)]


@pytest.fixture
def entry(tmp_path):
    """entry(name, **options) -> a source of five dialogs with the fields split, domain and level."""
    rows = [
        {"split": split, "domain": domain, "level": level, "conversations": [{"from": "human", "value": f"{level}?"}]}
        for split, domain, level in ROWS
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))

    def make(name, **options):
        return {"kind": "llava", "name": name, "annotations": str(tmp_path / "rows.json"), **options}

    return make


def test_a_row_without_the_field_is_not_selected(tmp_path, entry):
    rows = json.loads((tmp_path / "rows.json").read_text())
    del rows[1]["split"]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert levels(tmp_path, entry("notes", where={"split": "val"}, split="val")) == {"val": [4]}
    (tmp_path / "rows.json").write_text(json.dumps([{"conversations": [{"from": "human", "value": "?"}]}]))
    with pytest.raises(InputError, match="'split', which no row has"):
        levels(tmp_path, entry("bare", where={"split": "val"}))


def levels(tmp_path, *entries):
    """{split: levels} of a build."""
    build_records(parse_config({"output": str(tmp_path / "out"), "sources": list(entries)}, "c.yaml"))
    reader = ShardReader(index := ShardIndex.open(tmp_path / "out"))
    metas = [reader.meta(row) for row in range(index.count)]
    return {
        split: sorted(metas[row]["meta"]["level"] for row in index.split_rows(split))
        for split in index.splits
        if len(index.split_rows(split))
    }


def test_a_published_split(tmp_path, entry):
    sides = [entry(f"notes {split}", where={"split": split}, split=split) for split in ("train", "val")]
    assert levels(tmp_path, *sides) == {"train": [1, 3, 5], "val": [2, 4]}


def test_all_fields_must_hold_and_lists_are_alternatives(tmp_path, entry):
    where = {"split": "train", "domain": ["sea", "air"]}
    assert levels(tmp_path, entry("some", where=where, split="train")) == {"train": [3, 5]}


def test_a_row_keeps_its_number(entry):
    (placed,) = parse_config({"output": "o", "sources": [entry("a", where={"level": 4})]}, "c.yaml").sources
    assert [sample.key for sample in placed.source.samples()] == ["a-000000004"]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"splitt": "val"}, r"`where` asks for 'splitt', which no row has. Did you mean 'split'\?"),
        ({"split": "test"}, "`where` selects no row. The most frequent values are split: train, val"),
        ("val", "where: 'val' is a str, dict is due"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, entry, where, message):
    with pytest.raises(InputError, match=message):
        levels(tmp_path, entry("a", where=where))
    assert not (tmp_path / "out").exists()

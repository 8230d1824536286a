"""The record of an evaluation: strict both ways, whole or not there, and honest about what it cannot say."""

from __future__ import annotations

import dataclasses
import json
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval_suites.record import (
    DataStamp,
    EvalRecord,
    Metric,
    ModelStamp,
    SampleLogStamp,
    SuiteStamp,
    parse_record,
    read_record,
    record_text,
    write_record,
)
from eval_suites.statistics import bootstrap_mean
from mmzoo.errors import InputError

PSNR = Metric("psnr@4", 21.5, "dB", True, 20.9, 22.1, 0.95, n_values=40, n_groups=5, n_infinite=1)
ABSENT = Metric.absent("rfid@4", "weights absent", higher_is_better=False)


def record_of(**changes) -> EvalRecord:
    fields = {
        "schema": 1,
        "suite": SuiteStamp("reconstruction", "1", {"levels": [1, 4], "resize": "none", "limit": None}),
        "model": ModelStamp("run/step_7", "evotok", None, None, {"model.safetensors": "ab" * 32}, "verified", 3, 3, ()),
        "data": DataStamp("natural", "shards", "val", "cd" * 32, 40),
        "samples": SampleLogStamp("samples.jsonl", "ef" * 32, 40),
        "metrics": (PSNR, ABSENT),
        "command": "mmzoo eval run reconstruction",
        "date": "2026-11-25T03:00:00+00:00",
        "seconds": 1.5,
        "device": "cpu",
        "hardware": {"cores": 2, "gpus": []},
        "versions": {"torch": "2.15.0"},
        "git_commit": None,
    }
    return EvalRecord(**{**fields, **changes})


numbers = st.floats(allow_nan=False, allow_infinity=True)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@st.composite
def metrics(draw):
    name, unit, better = draw(names), draw(st.sampled_from(["", "dB"])), draw(st.sampled_from([None, True, False]))
    if draw(st.booleans()):
        return Metric.absent(name, draw(names), unit=unit, higher_is_better=better)
    low, high = sorted([draw(numbers), draw(numbers)])
    ends = draw(st.sampled_from([(None, None, None), (low, high, 0.95)]))
    counts = draw(st.tuples(*[st.integers(0, 2**40)] * 3))
    return Metric(name, draw(numbers), unit, better, *ends, *counts)


@given(st.lists(metrics(), max_size=4, unique_by=lambda metric: metric.name), st.dictionaries(names, names, max_size=3))
def test_it_comes_back_from_json_as_it_went(found, settings):
    record = record_of(metrics=tuple(found), suite=SuiteStamp("s", "2", settings))
    text = record_text(record)
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert parse_record(text) == record
    assert record_text(parse_record(text)) == text


def test_infinities_are_words_and_nan_is_refused():
    infinite = Metric("psnr@8", math.inf, "dB", True, n_infinite=4)
    text = record_text(record_of(metrics=(infinite,)))
    assert '"value": "inf"' in text
    assert parse_record(text).metrics == (infinite,)
    for mistake in ({"value": math.nan}, {"low": math.nan}):
        with pytest.raises(ValueError, match="NaN"):
            dataclasses.replace(PSNR, **mistake)
    with pytest.raises(ValueError, match="not JSON compliant"):
        SuiteStamp("s", "1", {"scale": math.inf})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"low": None}, "half an interval"),
        ({"low": 23.0}, "no sound interval"),
        ({"level": 95.0}, "no sound interval"),
        ({"value": None}, "no sound interval|needs a value"),
        ({"not_measured": "no weights"}, "needs a value"),
        ({"name": ""}, "no name"),
        ({"n_groups": -1}, "negative"),
    ],
)
def test_a_metric_that_contradicts_itself_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(PSNR, **changes)


def test_a_mean_brings_its_interval_along():
    interval = bootstrap_mean([1.0, 2.0, math.inf], ["a", "b", "c"])
    metric = Metric.of("psnr@1", interval, unit="dB", higher_is_better=True)
    assert (metric.value, metric.low, metric.high, metric.level) == (1.5, interval.low, interval.high, 0.95)
    assert (metric.n_values, metric.n_groups, metric.n_infinite) == (2, 2, 1)
    assert Metric.of("x", bootstrap_mean([1.0], ["a"])).level is None


FREE = [("suite", "settings"), ("model", "files"), ("hardware",), ("hardware", "gpus"), ("versions",)]


def at(content, path):
    for step in path:
        content = content[step]
    return content


def paths_in(value, path=()):
    """Every place in a JSON value."""
    yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from paths_in(inner, (*path, name))
    if isinstance(value, list):
        for number, inner in enumerate(value):
            yield from paths_in(inner, (*path, number))


CONTENT = json.loads(record_text(record_of()))
TABLES = [
    path
    for path in paths_in(CONTENT)
    if isinstance(at(CONTENT, path), dict) and path not in FREE  # those may hold any names
]


@pytest.mark.parametrize("path", TABLES, ids=str)
def test_a_field_too_few_or_too_many_is_named(path):
    for name in at(CONTENT, path):
        content = json.loads(json.dumps(CONTENT))
        del at(content, path)[name]
        with pytest.raises(ValueError, match=name):
            parse_record(json.dumps(content))
    content = json.loads(json.dumps(CONTENT))
    at(content, path)["surplus"] = 1
    with pytest.raises(InputError, match=r"unknown field '.*surplus'"):
        parse_record(json.dumps(content))


WRONG = {
    ("suite",): [None, [], "text"],
    ("suite", "version"): [1, None],
    ("suite", "settings"): [[], None, "text"],
    ("model", "files", "model.safetensors"): [None, 1],
    ("model", "tensors"): [1.0, "3", True, None],
    ("model", "missing"): ["name", {}, [1], None],
    ("model", "revision"): [1, False],
    ("metrics",): [{}, "text", None],
    ("metrics", 0): [[], None, 1.0],
    ("metrics", 0, "value"): ["21.5", True, [], "nan", "infinity"],
    ("metrics", 0, "higher_is_better"): [1, "true"],
    ("metrics", 0, "n_values"): [1.5, "40", None],
    ("metrics", 0, "not_measured"): [0, False],
    ("samples", "rows"): [None, 1.0],
    ("versions", "torch"): [2.15],
    ("hardware",): [[], None],
}


@pytest.mark.parametrize("path", WRONG, ids=str)
def test_a_field_of_another_type_is_named(path):
    for wrong in WRONG[path]:
        content = json.loads(json.dumps(CONTENT))
        at(content, path[:-1])[path[-1]] = wrong
        with pytest.raises(InputError, match="must be") as caught:
            parse_record(json.dumps(content))
        assert str(path[-1]) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expecting value"),
        ("[]", "must be a table"),
        ("{}", "schema None"),
        ('{"schema": 2}', "schema 2; this mmzoo reads schema 1"),
        (record_text(record_of())[:-40], "delimiter|Unterminated"),
        (record_text(record_of()).replace("21.5", "NaN"), "NaN is no JSON number"),
        (record_text(record_of()).replace("21.5", "1e999"), "the number 1e999 is too large"),
        (record_text(record_of()).replace("21.5", "9" * 5000), "the whole number 9{37}... is too large"),
        (record_text(record_of()).replace('"cores": 2', f'"cores": {"[" * 200}{"]" * 200}'), "more than 100 deep"),
        ("[" * 100_000, "more than 100 deep"),
        (record_text(record_of()).replace('"cpu"', '"\\ud800"'), "half a character"),
        (record_text(record_of()).replace('"schema": 1,', '"schema": 1, "schema": 1,'), "stands there twice"),
        (record_text(record_of()).replace("rfid@4", "psnr@4"), "'psnr@4' stands there twice"),
        (record_text(record_of()).replace('"samples.jsonl"', '"../samples.jsonl"'), "beside the record"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, text, words):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_record(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match="no sound record"):
        read_record(path)
    with pytest.raises(InputError, match="no record at"):
        read_record(tmp_path / "absent.json")


def test_it_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "out" / "record.json"
    write_record(record_of(), path)
    before = path.read_bytes()

    def cut(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("mmzoo.durable_files.flush", cut)
    with pytest.raises(InputError, match="No space left"):
        write_record(record_of(seconds=2.0), path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


def test_only_equal_protocols_on_equal_data_are_comparable():
    record = record_of()
    same = record_of(seconds=9.0, metrics=(), model=dataclasses.replace(record.model, name="other"))
    assert same.comparable == record.comparable
    for changes in (
        {"suite": dataclasses.replace(record.suite, version="2")},
        {"suite": dataclasses.replace(record.suite, settings={**record.suite.settings, "resize": "crop"})},
        {"data": dataclasses.replace(record.data, split="train")},
        {"data": dataclasses.replace(record.data, identity="00" * 32)},
        {"data": dataclasses.replace(record.data, n=39)},
    ):
        assert record_of(**changes).comparable != record.comparable
    renamed = record_of(data=dataclasses.replace(record.data, name="called otherwise"))
    assert renamed.comparable == record.comparable

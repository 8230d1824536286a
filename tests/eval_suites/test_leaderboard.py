"""The leaderboard: no cell without a record, nothing compared that must not be, and letters that mean what they say."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from finished_evaluations import changed, example, finish, noisy
from hypothesis import given
from hypothesis import strategies as st

from eval_suites.finding import find_suites
from eval_suites.leaderboard import proving
from eval_suites.leaderboard.comparing import compare_all, letter, letters
from eval_suites.leaderboard.gathering import gather, read_entry
from eval_suites.leaderboard.tables import make_tables
from eval_suites.record import Metric, SuiteStamp, read_record
from mmzoo import cli
from mmzoo.errors import InputError


def tables_of(folder: Path):
    entries, _ = gather([folder], folder / "board")
    return make_tables(entries)


def build(*paths: Path, out: Path) -> dict:
    assert cli.main(["leaderboard", "build", *map(str, paths), "--out", str(out)]) == 0
    return json.loads((out / "leaderboard.json").read_text())


def cells(board: dict):
    for table in board["tables"]:
        for row in table["rows"]:
            for name, cell in row["cells"].items():
                yield row, name, cell


def test_every_cell_is_its_record_and_its_log_lies_there(tmp_path):
    board = build(example(tmp_path / "runs"), out=tmp_path / "board")
    found = list(cells(board))
    assert len(found) == 4 * 3 + 1 + 1  # a metric that nobody measured is no cell
    for row, name, cell in found:
        record = read_record(tmp_path / "board" / row["record"])
        metric = record.metric(name)
        assert (cell["value"], cell["low"], cell["n_groups"]) == (metric.value, metric.low, metric.n_groups)
        assert (tmp_path / "board" / row["samples"]).parent == (tmp_path / "board" / row["record"]).parent
        read_entry(tmp_path / "board" / row["record"])  # the log's hash and means hold
    page = (tmp_path / "board/leaderboard.html").read_text()
    markdown = (tmp_path / "board/leaderboard.md").read_text()
    for links in (re.findall(r'href="(records[^"]+)"', page), re.findall(r"\((records[^)]+)\)", markdown)):
        assert len(links) >= 2 * 13
        assert all((tmp_path / "board" / link).is_file() for link in links)
    assert str(tmp_path) not in page + markdown + json.dumps(board)
    assert "http" not in page.replace("http-equiv", "")
    with (tmp_path / "board/leaderboard.csv").open() as file:
        lines = list(csv.DictReader(file))
    shown = [(row["model"], name) for row, name, _ in found]
    assert [(line["model"], line["metric"]) for line in lines] == shown


def test_the_same_records_give_the_same_bytes(tmp_path):
    runs = example(tmp_path / "runs")
    build(runs, out=tmp_path / "one")
    build(*sorted(runs.iterdir(), reverse=True), out=tmp_path / "two")
    for file in sorted((tmp_path / "one").rglob("*.*")):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes(), file


def test_only_equal_suites_settings_and_data_share_a_table(tmp_path):
    values = {"psnr@4": noisy(20, 1)}
    finish(tmp_path / "a", "a", values)
    finish(tmp_path / "b", "b", values, suite=SuiteStamp("reconstruction", "2", {"levels": [1, 4]}))
    finish(tmp_path / "c", "c", values, suite=SuiteStamp("reconstruction", "1", {"levels": [4]}))
    finish(tmp_path / "d", "d", values, data="other")
    finish(tmp_path / "e", "e", {"psnr@4": noisy(20, 1)[:59]})
    finish(tmp_path / "f", "f", values)
    found = [[row.name for row in table.rows] for table in tables_of(tmp_path)]
    assert sorted(found) == [["a", "f"], ["b"], ["c"], ["d"], ["e"]]


def test_the_newest_of_equal_evaluations_counts_and_the_others_are_named(tmp_path, capsys):
    dates = ["2026-11-25T03:00:00+00:00", "2026-11-25T04:30:00+02:00", "2026-11-24T23:00:00-05:00"]
    for name, date in zip("abc", dates, strict=True):
        finish(tmp_path / name, name, {"psnr@4": noisy(20, ord(name))}, weights="the same", date=date)
    board = build(tmp_path, out=tmp_path / "board")
    (table,) = board["tables"]
    assert [row["model"] for row in table["rows"]] == ["c"]  # 04:00 UTC, after 03:00 and 02:30
    assert sorted(one["model"] for one in board["superseded"]) == ["a", "b"]
    assert {one["by"] for one in board["superseded"]} == {table["rows"][0]["record"]}
    err = capsys.readouterr().err
    assert f"{tmp_path}/a/record.json is superseded by {tmp_path}/c/record.json" in err
    assert "<h2>Superseded</h2>" in (tmp_path / "board/leaderboard.html").read_text()


def test_models_of_one_name_are_told_apart_and_copies_count_once(tmp_path):
    for number in range(2):
        finish(tmp_path / f"run{number}", "same", {"psnr@4": noisy(20, number)}, weights=f"weights {number}")
    board = build(tmp_path, tmp_path / "run0", tmp_path / "run0/record.json", out=tmp_path / "board")
    names = [row["model"] for row in board["tables"][0]["rows"]]
    assert len(set(names)) == 2
    assert all(re.fullmatch(r"same \([0-9a-f]{8}\)", name) for name in names)
    again = build(tmp_path, out=tmp_path / "board")  # its own copies lie below tmp_path now
    assert again == board


def test_pairs_see_what_intervals_cannot(tmp_path):
    finish(tmp_path / "a", "a", {"psnr@4": noisy(20.0, 1)})
    finish(tmp_path / "b", "b", {"psnr@4": noisy(20.3, 2)})
    finish(tmp_path / "c", "c", {"psnr@4": noisy(20.0, 3)})
    (table,) = tables_of(tmp_path)
    (column,) = table.columns
    assert table.rows[0].name == "b"
    first, second = (row.metric("psnr@4") for row in table.rows[:2])
    assert first.low < second.high  # side by side the two intervals overlap
    assert {row.name: row.tied["psnr@4"] for row in table.rows} == {"b": "a", "a": "b", "c": "b"}
    assert {one.method for one in column.comparisons} == {"paired bootstrap"}
    apart = next(one for one in column.comparisons if (one.first, one.second) == (0, 1))
    assert apart.difference == pytest.approx(first.value - second.value)
    assert 0 < apart.low < apart.difference < apart.high
    assert apart.n_groups == 30


def test_groups_not_crops_are_resampled(tmp_path):
    """One photograph of 60 crops says nothing of other photographs."""
    finish(tmp_path / "a", "a", {"psnr@4": noisy(20.0, 1)}, group_of=60)
    finish(tmp_path / "b", "b", {"psnr@4": noisy(25.0, 2)}, group_of=60)
    (table,) = tables_of(tmp_path)
    (comparison,) = table.columns[0].comparisons
    assert (comparison.method, comparison.told_apart) == ("no interval", False)
    assert all(not row.tied for row in table.rows)  # nothing was judged, so nothing is marked


@pytest.mark.parametrize(("groups", "judged"), [(2, False), (5, False), (6, True)])
def test_a_handful_of_photographs_tells_nothing_apart(tmp_path, groups, judged):
    """Five in a row for one of two equal models is no wonder; the bootstrap alone would call it a difference."""
    for name, mean in (("a", 20.0), ("b", 25.0)):
        finish(tmp_path / name, name, {"psnr@4": noisy(mean, 1, n=2 * groups)})
    (table,) = tables_of(tmp_path)
    (comparison,) = table.columns[0].comparisons
    assert comparison.low is not None
    assert comparison.high < 0 or comparison.low > 0
    assert (comparison.judged, comparison.told_apart, table.judged) == (judged, judged, int(judged))
    assert comparison.method == ("paired bootstrap" if judged else "too few groups")
    assert [row.tied.get("psnr@4") for row in table.rows] == (["a", "b"] if judged else [None, None])


def test_without_rows_the_intervals_decide(tmp_path):
    def rfid(value, half):
        ends = (None,) * 3 if half is None else (value - half, value + half, 0.95)
        return Metric("rfid@4", value, "", False, *ends)

    for name, value, half in [("a", 3.0, 1.0), ("b", 4.5, 1.0), ("c", 7.0, 1.0), ("d", 2.0, None)]:
        finish(tmp_path / name, name, {"psnr@4": noisy(20, 1)}, whole=(rfid(value, half),))
    (table,) = tables_of(tmp_path)
    marks = {row.name: row.tied["rfid@4"] for row in table.rows}
    assert marks == {"d": "ab", "a": "a", "b": "a", "c": "b"}  # nothing is told apart from d, which has no interval
    methods = [one.method for one in table.columns[1].comparisons]
    assert methods.count("interval overlap") == 3
    assert methods.count("no interval") == 3


def test_lower_is_better_and_neither_is(tmp_path):
    for name, value in [("a", 0.3), ("b", 0.2), ("c", 0.4)]:
        values = [value + sample / 1000 for sample in noisy(0, ord(name))]
        finish(tmp_path / name, name, {"lpips_vgg@4": values, "bpp@4": [value] * 60})
    (table,) = tables_of(tmp_path)
    assert [row.name for row in table.rows] == ["b", "a", "c"]
    assert [row.tied.get("lpips_vgg@4") for row in table.rows] == ["a", "b", "c"]
    assert [row.tied.get("bpp@4") for row in table.rows] == [None] * 3


def test_exact_copies_are_set_aside_and_counted(tmp_path):
    exact = noisy(20, 1)
    exact[3] = math.inf
    finish(tmp_path / "a", "a", {"psnr@4": exact})
    finish(tmp_path / "b", "b", {"psnr@4": noisy(21, 2)})
    finish(tmp_path / "c", "c", {"psnr@4": [math.inf] * 60})
    (table,) = tables_of(tmp_path)
    assert [row.name for row in table.rows] == ["c", "b", "a"]
    by_pair = {(table.rows[one.first].name, table.rows[one.second].name): one for one in table.columns[0].comparisons}
    assert (by_pair["b", "a"].method, by_pair["b", "a"].n_exact) == ("paired bootstrap", 1)
    assert (by_pair["c", "b"].method, by_pair["c", "b"].n_exact) == ("no interval", 60)
    board = build(tmp_path, out=tmp_path / "board")
    assert board["tables"][0]["rows"][0]["cells"]["psnr@4"]["value"] == "inf"
    assert 'data-value="Infinity"' in (tmp_path / "board/leaderboard.html").read_text()


@given(
    st.integers(1, 7).flatmap(
        lambda n: st.tuples(st.permutations(range(n)), st.sets(st.sampled_from([*combinations(range(n), 2), (0, 0)])))
    )
)
def test_rows_share_a_letter_exactly_when_they_are_not_told_apart(case):
    order, apart = case
    apart = {pair for pair in apart if pair[0] != pair[1]}
    marks = {row: set(re.findall(r"[a-z]\d*", text)) for row, text in letters(order, sorted(apart)).items()}
    assert marks.keys() == set(order)
    assert "a" in marks[order[0]]
    for first, second in combinations(range(len(order)), 2):
        assert bool(marks[first] & marks[second]) == ((first, second) not in apart)


def test_letters_never_run_out():
    assert [letter(number) for number in (0, 25, 26, 52)] == ["a", "z", "a1", "a2"]
    apart = list(combinations(range(30), 2))
    assert len(set(letters(range(30), apart).values())) == 30


@pytest.mark.parametrize("damage", ["record", "log", "log gone", "other mean", "date"])
def test_a_damaged_record_ends_the_build_by_name(tmp_path, capsys, damage):
    finish(tmp_path / "runs/good", "good", {"psnr@4": noisy(20, 1)})
    path = finish(tmp_path / "runs/bad", "bad", {"psnr@4": noisy(20, 2)})
    log = path.with_name("samples.jsonl")
    if damage == "record":
        path.write_text(path.read_text()[:-30])
    if damage == "log":
        log.write_bytes(log.read_bytes().replace(b"photo3#", b"photo4#"))
    if damage == "log gone":
        log.unlink()
    if damage == "other mean":  # a number that was made nicer by hand
        (metric,) = read_record(path).metrics
        changed(path, metrics=(dataclasses.replace(metric, value=metric.value + 0.01),))
    if damage == "date":
        changed(path, date="2026-11-25T03:00:00")
    assert cli.main(["leaderboard", "build", str(tmp_path / "runs"), "--out", str(tmp_path / "board")]) == 2
    output = capsys.readouterr()
    assert str(path.parent) in output.err
    assert output.err.count("\n") == 1
    assert output.out == ""
    assert not (tmp_path / "board").exists()


def test_one_name_for_two_things_is_refused(tmp_path):
    path = finish(tmp_path / "a", "a", {"psnr@4": noisy(20, 1)})
    finish(tmp_path / "b", "b", {"psnr@4": noisy(20, 1)})
    (metric,) = read_record(path).metrics
    changed(path, metrics=(dataclasses.replace(metric, higher_is_better=False),))
    with pytest.raises(InputError, match=r"psnr@4 has another unit or direction in .*/b/record.json than in .*/a/"):
        tables_of(tmp_path)


def test_places_that_are_no_leaderboard_are_left_alone(tmp_path, capsys):
    runs = example(tmp_path / "runs")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for out, words in [("mine", "holds thesis.txt"), ("file", "is a file"), ("file/board", "cannot be written")]:
        assert cli.main(["leaderboard", "build", str(runs), "--out", str(tmp_path / out)]) == 2
        assert words in capsys.readouterr().err
    build(runs, out=tmp_path / "board")
    (tmp_path / "board/records/notes.txt/x").mkdir(parents=True)
    assert cli.main(["leaderboard", "build", str(runs), "--out", str(tmp_path / "board")]) == 2
    for wrong, words in [("absent", "there is no"), ("mine", "holds no record.json")]:
        assert cli.main(["leaderboard", "build", str(tmp_path / wrong), "--out", str(tmp_path / "new")]) == 2
        assert words in capsys.readouterr().err


def test_a_build_that_fails_leaves_the_earlier_one(tmp_path, monkeypatch):
    runs = example(tmp_path / "runs")
    before = build(runs, out=tmp_path / "board")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eval_suites.leaderboard.command._copy", full)
    assert cli.main(["leaderboard", "build", str(runs), "--out", str(tmp_path / "board")]) == 2
    assert json.loads((tmp_path / "board/leaderboard.json").read_text()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["board", "runs"]


def test_one_model_is_one_model(tmp_path, capsys):
    finish(tmp_path / "a", "a", {"psnr@4": noisy(20, 1)})
    build(tmp_path, out=tmp_path / "board")
    assert capsys.readouterr().err.endswith("reconstruction 1, natural: 1 model\n")


def test_text_of_a_record_is_text_on_the_page(tmp_path):
    hostile = "<script>alert(1)</script>|[x](y)"
    suite = SuiteStamp("<b>bold</b>", "1", {"note": "<img src=x>"})
    finish(tmp_path / "a", hostile, {"psnr@4": noisy(20, 1)}, suite=suite)
    build(tmp_path, out=tmp_path / "board")
    page = (tmp_path / "board/leaderboard.html").read_text()
    assert page.count("<script>") == 1
    assert "<b>bold" not in page
    assert "<img" not in page
    row = next(line for line in (tmp_path / "board/leaderboard.md").read_text().splitlines() if "alert" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


def test_many_models_are_compared_in_every_pair(tmp_path):
    for number in range(6):
        finish(tmp_path / str(number), str(number), {"psnr@4": noisy(20, number)})
    entries, _ = gather([tmp_path], tmp_path / "board")
    assert len(compare_all(entries, "psnr@4")) == 15
    (table,) = make_tables(entries)
    assert table.judged == 15


def test_pages_show_the_headline_and_files_hold_all(tmp_path):
    runs = tmp_path / "runs"
    finish(runs / "a", "a", {"psnr@4": noisy(20, 1), "jpeg_psnr@4": noisy(30, 2)})
    board = build(runs, out=tmp_path / "board")
    assert [column["name"] for column in board["tables"][0]["columns"]] == ["psnr@4", "jpeg_psnr@4"]
    assert "jpeg_psnr@4" in (tmp_path / "board/leaderboard.csv").read_text()
    for name in ("leaderboard.md", "leaderboard.html"):
        text = (tmp_path / "board" / name).read_text().replace("\\", "")
        assert "jpeg_psnr@4" not in text
        assert "in the records also: jpeg_psnr." in text


def test_a_count_that_its_rows_deny_ends_the_build(tmp_path):
    path = finish(tmp_path / "a", "a", {"psnr@4": noisy(20, 1)})
    metric = dataclasses.replace(read_record(path).metrics[0], n_values=5000)
    changed(path, metrics=(metric,))
    with pytest.raises(InputError, match="counts 5,000 values"):
        read_entry(path)


@pytest.mark.parametrize(
    ("metric", "changes", "words"),
    [
        (0, {"low": 19.9}, "the interval of psnr@4 is 19.9 to .* at 0.95, but its rows in samples.jsonl give"),
        (0, {"low": None, "high": None, "level": None}, "the interval of psnr@4 is none, but its rows"),
        (0, {"level": 0.5}, "at 0.5, but its rows"),
        (0, {"n_groups": 60}, r"counts 60 groups, .* holds 30 \(n_groups\)"),
        (0, {"n_infinite": 2}, r"counts 2 infinite values, .* holds 0"),
        (0, {"value": None, "not_measured": "no", "low": None, "high": None, "level": None}, "is said not to be"),
        (
            0,
            {"higher_is_better": False},
            "higher_is_better False; the suite says 'dB' and True",
        ),
        (0, {"unit": "B"}, "psnr@4 has the unit 'B'"),
        (1, {"n_groups": 31}, "rfid@4 counts 31 groups, and there are 30"),
    ],
)
@pytest.mark.parametrize("exact", [True, False])
def test_what_a_record_claims_beyond_its_rows_ends_the_build(tmp_path, monkeypatch, exact, metric, changes, words):
    if not exact:
        monkeypatch.setattr(proving, "EXACT_DRAWS", 0)
    suite = SuiteStamp("reconstruction", find_suites()["reconstruction"].version, {"levels": [4]})
    whole = Metric("rfid@4", 3.0, "", False, n_values=60, n_groups=30)
    path = finish(tmp_path / "a", "a", {"psnr@4": noisy(20, 1)}, suite=suite, whole=(whole,))
    read_entry(path)
    metrics = list(read_record(path).metrics)
    if "low" in changes and exact is False and changes["low"] == 19.9:
        changes = {"low": 0.0}  # the rough judgement sees only what is far off
        words = "the interval of psnr@4 is 0 to"
    metrics[metric] = dataclasses.replace(metrics[metric], **changes)
    changed(path, metrics=tuple(metrics))
    with pytest.raises(InputError, match=words):
        read_entry(path)


@pytest.mark.parametrize("field", ["suite", "model", "data", "n"])
def test_a_record_of_something_else_than_its_log_ends_the_build(tmp_path, field):
    path = finish(tmp_path / "a", "a", {"psnr@4": noisy(20, 1)})
    record = read_record(path)
    if field == "suite":
        changed(path, suite=dataclasses.replace(record.suite, settings={"levels": [1]}))
    if field == "model":
        changed(path, model=dataclasses.replace(record.model, files={"model.safetensors": "00" * 32}))
    if field == "data":
        changed(path, data=dataclasses.replace(record.data, split="train"))
    if field == "n":
        changed(path, data=dataclasses.replace(record.data, n=5000))
    with pytest.raises(InputError, match=r"is not what samples\.jsonl says that was measured"):
        read_entry(path)


def test_the_rough_judgement_takes_every_honest_interval(tmp_path, monkeypatch):
    monkeypatch.setattr(proving, "EXACT_DRAWS", 0)
    columns = {
        "psnr@4": [float("inf"), *noisy(20, 1)[1:]],
        "ssim@4": [1.0] + [0.0] * 59,  # one sample of sixty: the least normal that a share can be
        "lpips_vgg@4": np.random.default_rng(0).pareto(2, 60).tolist(),
        "bpp@4": [4.5] * 60,
    }
    read_entry(finish(tmp_path / "a", "a", columns))

"""`mmzoo eval run`: one record a folder, gone on with after a kill, refused for anything else."""

from __future__ import annotations

import dataclasses
import json
import sys
import types

import pytest
import torch

from eval_suites import finding
from eval_suites import fitting as fitting_module
from eval_suites.description import Option, Suite, whole_numbers
from eval_suites.model_loading import model_name
from eval_suites.record import DataStamp, Metric, read_record
from eval_suites.sample_log import SampleRow, read_sample_log
from eval_suites.statistics import bootstrap_mean
from mmzoo import cli
from mmzoo.folder_lock import LOCK_FILE, only_writer
from mmzoo.hub.save import save_model
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.family import TINY
from tokenizers_visual.evotok.modeling import EvoTokModel


class Lengths:
    """A suite that measures how long each line of a text file is; `stop_at`: raises there, as a kill would."""

    def __init__(self):
        self.measured = []
        self.stop_at = None
        self.options = []

    def evaluate(self, request):
        self.options.append(dict(request.options))
        lines = request.data.read_text().splitlines()[: request.limit]
        log = request.open_log(
            {"limit": request.limit, "times": request.options["times"]},
            DataStamp(request.data.name, "folder", None, str(hash(tuple(lines))), len(lines)),
        )
        for line in lines:
            if line in log:
                continue
            if line == self.stop_at:
                raise KeyboardInterrupt
            self.measured.append(line)
            log.append(SampleRow(line, line[0], {"length@1": float(len(line) * sum(request.options["times"]))}))
        mean = bootstrap_mean([row.values["length@1"] for row in log.rows], [row.group for row in log.rows])
        return [Metric.of("length@1", mean, unit="px", higher_is_better=True), Metric.absent("lpips", "weights absent")]


@pytest.fixture
def suite(monkeypatch):
    lengths = Lengths()
    module = types.ModuleType("suite_of_a_test")
    module.evaluate = lengths.evaluate
    monkeypatch.setitem(sys.modules, module.__name__, module)
    options = (Option("times", "factors", whole_numbers, [1]),)
    found = Suite("lengths", "3", "how long", ("length", "lpips"), "word", "", f"{module.__name__}:evaluate", options)
    monkeypatch.setattr(finding, "find_suites", lambda: {"lengths": found})
    return lengths


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    torch.manual_seed(0)
    return save_model(EvoTokModel(EvoTokConfig(**TINY)), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def run(suite, model_folder, tmp_path, capsys):
    (tmp_path / "lines.txt").write_text("aa\nab\nbbbb\ncc\n")

    def command(*extra, out="out", model=model_folder, data="lines.txt"):
        words = ["eval", "run", "lengths", "--model", str(model), "--data", str(tmp_path / data)]
        code = cli.main([*words, "--out", str(tmp_path / out), "--device", "cpu", *extra])
        return code, capsys.readouterr()

    return command


def test_it_leaves_a_record_and_its_log(run, suite, tmp_path, model_folder):
    code, output = run("--times", "2,1")
    assert code == 0
    assert suite.options == [{"times": [1, 2]}]
    record = read_record(tmp_path / "out/record.json")
    assert (record.suite.name, record.suite.version, record.suite.settings["times"]) == ("lengths", "3", [1, 2])
    assert (record.model.name, record.model.family, record.model.hashes) == ("tiny", "evotok", "verified")
    assert set(record.model.files) == {"config.json", "model.safetensors"}
    assert record.metric("length@1").value == 7.5
    assert (record.metric("length@1").n_values, record.metric("length@1").n_groups) == (4, 3)
    assert record.metric("lpips").not_measured == "weights absent"
    assert record.seconds is not None
    assert record.command == "mmzoo eval run lengths --model tiny --data lines.txt --out out --device cpu --times 2,1"
    assert str(tmp_path) not in (tmp_path / "out/record.json").read_text()
    assert [row.key for row in read_sample_log(tmp_path / "out", record.samples)] == ["aa", "ab", "bbbb", "cc"]
    assert "length@1  7.5 px" in output.out
    assert "n 4 in 3)" in output.out
    assert "  not measured: lpips (weights absent)\n" in output.out
    assert "(95 % intervals over groups)" in output.out


def test_the_headline_is_shown_and_all_on_request(run, monkeypatch):
    found = dataclasses.replace(finding.find_suites()["lengths"], headline=("length",))
    monkeypatch.setattr(finding, "find_suites", lambda: {"lengths": found})
    short, whole = run()[1].out, run("--all")[1].out
    assert "length@1  2.5 px" in short
    assert "lpips" not in short
    assert short.endswith("  and 1 more in record.json; --all shows them here\n")
    assert "not measured: lpips (weights absent)" in whole
    assert "more in" not in whole


def test_a_model_of_another_kind_is_told_what_fits(run, monkeypatch, tmp_path):
    suites = finding.find_suites()
    unfit = dataclasses.replace(suites["lengths"], subject="choirs, which sing", needs=("sing",))
    fitting = dataclasses.replace(suites["lengths"], name="other", needs=("encode", "decode_pixels"))
    for found, words in (
        ({"lengths": unfit, "other": fitting}, "Suites for it: other. See: mmzoo eval list"),
        ({"lengths": unfit}, "No suite here scores such models. See: mmzoo eval list"),
    ):
        monkeypatch.setattr(finding, "find_suites", found.copy)
        monkeypatch.setattr(fitting_module, "find_suites", found.copy)
        code, output = run()
        assert code == 2
        assert "the suite lengths scores choirs, which sing; " in output.err
        assert "is evotok (unified image tokenizer" in output.err
        assert words in output.err
    assert not (tmp_path / "out").exists()


def test_json_is_the_record_and_nothing_else(run, tmp_path):
    _, output = run("--json")
    assert json.loads(output.out) == json.loads((tmp_path / "out/record.json").read_text())


def test_interrupted_it_goes_on_and_ends_the_same(run, suite, tmp_path):
    run(out="whole")
    suite.measured.clear()
    suite.stop_at = "bbbb"
    assert run()[0] == 130
    assert not (tmp_path / "out/record.json").exists()
    suite.stop_at = None
    code, output = run()
    assert code == 0
    assert suite.measured == ["aa", "ab", "bbbb", "cc"]
    assert "going on after 2 samples" in output.err
    whole, resumed = (read_record(tmp_path / name / "record.json") for name in ("whole", "out"))
    assert resumed.metrics == whole.metrics
    assert resumed.samples == whole.samples
    assert resumed.seconds is None


def test_begun_under_other_settings_it_is_refused(run, suite):
    suite.stop_at = "bbbb"
    run()
    code, output = run("--limit", "2")
    assert code == 2
    assert "begun under other settings (data, suite)" in output.err


def test_finished_it_is_left_as_it_is(run, suite, tmp_path):
    run()
    before = (tmp_path / "out/record.json").read_bytes()
    suite.measured.clear()
    code, output = run("--name", "other", data="lines.txt")
    assert code == 0
    assert "holds this evaluation already" in output.err
    assert "length@1" in output.out
    assert suite.measured == []
    assert (tmp_path / "out/record.json").read_bytes() == before


@pytest.mark.parametrize("what", ["settings", "data", "model", "version", "log", "record"])
def test_a_record_of_something_else_is_refused_and_kept(run, suite, tmp_path, monkeypatch, what):
    run()
    extra, options, words = (), {}, "of another evaluation"
    if what == "settings":
        extra, words = ("--times", "2"), "suite settings times: [1] there, [2] now"
    if what == "data":
        (tmp_path / "more.txt").write_text("aa\n")
        options, words = {"data": "more.txt"}, "data identity"
    if what == "model":
        torch.manual_seed(1)
        options = {"model": save_model(EvoTokModel(EvoTokConfig(**TINY)), tmp_path / "tiny")}
        words = "model model.safetensors"
    if what == "version":
        found = finding.find_suites()["lengths"]
        newer = dataclasses.replace(found, version="4")
        monkeypatch.setattr(finding, "find_suites", lambda: {"lengths": newer})
        words = "suite version: 3 there, 4 now"
    if what == "log":
        (tmp_path / "out/samples.jsonl").write_text("")
        words = "has changed since its record"
    if what == "record":
        (tmp_path / "out/record.json").write_text("{}")
        words = "no sound record"
    before = (tmp_path / "out/record.json").read_bytes()
    code, output = run(*extra, **options)
    assert code == 2
    assert words in output.err
    assert output.err.count("mmzoo: ") == 1
    assert (tmp_path / "out/record.json").read_bytes() == before


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--limit", "0"), "--limit 0: give 1 or more"),
        (("--times", "1,x"), "--times '1,x': give whole numbers"),
        (("--device", "nonsense"), "--device nonsense cannot be used here"),
        (("--device", "cuda:7"), "--device cuda:7 cannot be used here"),
        (("--levels", "1"), "unrecognized arguments: --levels 1. See: mmzoo eval run --help"),
    ],
)
def test_mistakes_are_one_line(run, extra, words):
    code, output = run(*extra)
    assert code == 2
    assert words in output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_places_that_cannot_be_are_named(run, tmp_path):
    (tmp_path / "file").write_text("x")
    assert "is a file. Name a folder" in run(out="file")[1].err
    assert "cannot be written" in run(out="file/below")[1].err
    assert "there is no model folder" in run(model=tmp_path / "absent")[1].err


def test_unknown_suites_get_the_nearest_name(capsys):
    assert cli.main(["eval", "run", "reconstrution"]) == 2
    assert "Did you mean 'reconstruction'?" in capsys.readouterr().err
    assert cli.main(["eval", "run"]) == 2
    assert "required: suite" in capsys.readouterr().err


def test_a_second_evaluation_is_kept_out(run, tmp_path):
    (tmp_path / "out").mkdir()
    with only_writer(tmp_path / "out", "an evaluation", "Wait."):
        code, said = run()
    assert code == 2
    assert "is in use for an evaluation by process" in said.err
    assert run()[0] == 0
    assert not (tmp_path / "out" / LOCK_FILE).exists()


def test_options_before_the_suite_are_refused(tmp_path, capsys):
    assert cli.main(["eval", "run", "--model", "m", "--data", str(tmp_path), "--out", "o", "reconstruction"]) == 2
    assert "name the suite first: mmzoo eval run reconstruction" in capsys.readouterr().err


def test_the_list_shows_what_is_found(capsys):
    assert cli.main(["eval", "list"]) == 0
    assert capsys.readouterr().out.startswith("reconstruction, version ")
    assert cli.main(["eval", "list", "--json"]) == 0
    suites = {suite["name"]: suite for suite in json.loads(capsys.readouterr().out)["suites"]}
    assert suites.keys() == {"reconstruction", "sar_segmentation"}
    assert "levels" in suites["reconstruction"]["options"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("owner/name", "owner/name"),
        ("/a/runs/first/checkpoints/step_00000100/model", "first/step_00000100"),
        ("/a/published", "published"),
        ("/a/model", "model"),
    ],
)
def test_models_have_short_names(source, name):
    assert model_name(source) == name

"""Whole runs over shards with a broken sample: within the budget they go on, beyond it they end with one line."""

import json
import os
import shutil

import pytest

from data_engine.index import ShardIndex
from mmzoo.cli import main


@pytest.fixture
def spoilt(shards, config, tmp_path):
    """The config of tests/mmzoo/training, over a copy of the shards with one training and one validation row broken."""
    folder = tmp_path / "spoilt"
    shutil.copytree(shards, folder)
    index = ShardIndex.open(folder)
    for row in (index.split_rows("train")[2], index.split_rows("val")[0]):
        path, offset, size = index.place(int(row), "image")
        with path.open("r+b") as tar:
            tar.seek(offset)
            tar.write(bytes(size))
        os.utime(path, (1e9, 1e9))
    config.write_text(config.read_text().replace(str(shards), str(folder)))
    return config


def fit(config, run, *flags):
    return main(["fit", "-c", str(config), "--run", str(run), *flags])


def rows(run):
    return [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]


def test_a_run_goes_on_and_its_resume_lists_nothing_twice(spoilt, tmp_path, capsys):
    run = tmp_path / "run"
    assert fit(spoilt, run, "--data.init_args.max_broken", "2") == 0
    assert sorted(row["split"] for row in rows(run)) == ["train", "val"]
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert json.loads((run / "checkpoints/last/data_state.json").read_text())["position"] == 32
    zoo = json.loads((run / "checkpoints/best/model/zoo.json").read_text())
    assert zoo["run"]["metrics"].keys() == {"val/loss"}
    before = rows(run)
    resume = ["--ckpt_path", str(run / "checkpoints/step_00000002")]
    assert fit(spoilt, run, *resume, "--data.init_args.max_broken_share", "0.1") == 0
    assert rows(run) == before
    assert "Traceback" not in capsys.readouterr().err


def test_a_fresh_start_begins_a_list_of_its_own(spoilt, tmp_path):
    run, flags = tmp_path / "run", ["--data.init_args.max_broken", "2", "--trainer.max_steps", "4"]
    for _ in range(2):
        assert fit(spoilt, run, *flags) == 0
    assert len(list(run.glob("earlier/*/quarantine.jsonl"))) == 1
    assert 1 <= len(rows(run)) <= 2


@pytest.mark.parametrize(("flags", "listed"), [([], 1), (["--data.init_args.max_broken", "1"], 2)])
def test_a_spent_budget_is_one_line_and_exit_code_2(spoilt, tmp_path, capsys, flags, listed):
    run = tmp_path / "run"
    assert fit(spoilt, run, *flags) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("mmzoo: ")]
    assert len(lines) == 1
    assert f"{listed} of 20 samples are broken, listed in {run}/quarantine.jsonl" in lines[0]
    assert "Traceback" not in captured.err
    assert len(rows(run)) == listed

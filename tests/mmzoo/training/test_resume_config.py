"""What a resume takes from its checkpoint, what it refuses, what it says."""

import json
import shutil

import pytest
import yaml

from mmzoo.cli import main
from mmzoo.errors import InputError
from mmzoo.training.checkpoint_folder import LAST, point
from mmzoo.training.resume_config import consents, difference_table, differences, find_checkpoint, step_ranges


def fit(run, *flags):
    return main(["fit", "--run", str(run), *flags])


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return {}


@pytest.fixture
def begun(first, config, tmp_path, tmp_path_factory):
    """(config, run): a copy of a run of 4 steps, with a learning rate that only the command line gave."""
    if not first:
        folder = tmp_path_factory.mktemp("begun")
        shutil.copy(config, folder / "tiny.yaml")
        flags = ["--trainer.max_steps", "4", "--model.init_args.optimizer.lr", "0.003", "--trainer.max_epochs", "9"]
        assert main(["fit", "-c", str(folder / "tiny.yaml"), "--run", str(folder / "run"), *flags]) == 0
        first.update(config=folder / "tiny.yaml", run=folder / "run")
    shutil.copytree(first["run"], tmp_path / "run", symlinks=True)
    return first["config"], tmp_path / "run"


def settings(run):
    return yaml.safe_load((run / "config.yaml").read_text())


def shown(capsys):
    """{setting: (checkpoint, now)} of the printed table."""
    rows = [line.split() for line in capsys.readouterr().err.splitlines() if line.startswith("  ")]
    return {key: (old, new) for key, old, new in rows[1:]}


def test_command_line_over_file_over_checkpoint(begun, capsys):
    _, run = begun
    later = run.parent / "later.yaml"
    later.write_text("trainer: {max_steps: 6}\ncheckpoint: {keep: 7}\n")
    assert fit(run, "-c", str(later), "--ckpt_path", "last", "--checkpoint.keep", "5") == 0
    now = settings(run)
    assert now["checkpoint"]["keep"] == 5  # command line
    assert now["trainer"]["max_steps"] == 6  # file
    assert now["model"]["init_args"]["optimizer"]["lr"] == 0.003  # checkpoint
    assert now["trainer"]["max_epochs"] == 9
    assert now["data"]["init_args"]["global_batch"] == 4
    expected = {"trainer.max_steps": ("4", "6"), "checkpoint.keep": ("20", "5")}
    assert shown(capsys) == expected
    recorded = {
        key: (str(old), str(new)) for key, old, new in json.loads((run / "run.json").read_text())["changed_settings"]
    }
    assert recorded == expected


def test_a_file_wins_over_the_checkpoint(begun, capsys):
    config, run = begun
    assert fit(run, "-c", str(config), "--ckpt_path", "last") == 0
    assert settings(run)["model"]["init_args"]["optimizer"]["lr"] == 0.01
    assert shown(capsys) == {
        "trainer.max_steps": ("4", "8"),
        "model.init_args.optimizer.lr": ("0.003", "0.01"),
    }


def test_an_evaluation_needs_no_config_and_leaves_the_trainer_alone(begun, capsys):
    _, run = begun
    assert main(["validate", "--run", str(run), "--ckpt_path", "last", "--trainer.accelerator", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"val/loss"}
    record = yaml.safe_load((run / "validate" / "config.yaml").read_text())
    assert (record["seed_everything"], record["trainer"]["max_epochs"]) == (3, None)


def test_another_batch_or_order_needs_consent(begun, capsys):
    _, run = begun
    batch, seed = ["--data.init_args.global_batch", "2"], ["--data.init_args.seed", "5"]
    more = ["--ckpt_path", "last", "--trainer.max_steps", "6"]
    for change, words in ((batch, "global_batch is 2, the checkpoint was trained with 4"), (seed, "another order")):
        assert fit(run, *more, *change) == 2
        assert words in capsys.readouterr().err
    assert fit(run, *more, *batch, *seed, "--allow_changes", "global_batch") == 2
    assert "consent with --allow_changes seed" in capsys.readouterr().err
    assert fit(run, *more, *batch, "--allow-changes", "global_batch") == 0
    position = json.loads((run / "checkpoints/last/data_state.json").read_text())["position"]
    assert position == 4 * 4 + 2 * 2
    capsys.readouterr()
    # 13 training rows: after 20 samples a new order begins at the next epoch, position 26.
    assert fit(run, *more, *seed, "--allow_changes", "seed", "--trainer.max_steps", "7") == 0
    assert json.loads((run / "checkpoints/last/data_state.json").read_text())["position"] == 26 + 2
    steps = {}
    for step in (4, 6, 7):
        capsys.readouterr()
        assert main(["data", "why", str(run), "--step", str(step), "--json"]) == 0
        steps[step] = [sample["position"] for sample in json.loads(capsys.readouterr().out)["samples"]]
    assert steps == {4: [12, 13, 14, 15], 6: [18, 19], 7: [26, 27]}


def test_a_mistake_names_what_was_changed_against_the_checkpoint(begun, capsys):
    _, run = begun
    assert fit(run, "--ckpt_path", "last", "--model.init_args.optimizer.lr", "-1") == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith("(Differs from step_00000004: model.init_args.optimizer.lr)")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--allow_changes", "everything", "--ckpt_path", "last"], "known are global_batch, seed, shards"),
        (["--skip_steps", "9", "--ckpt_path", "last"], "'9' is not a range of steps"),
        (["--skip_steps", "3..4", "--ckpt_path", "last"], "has already trained on step 3"),
        (["--ckpt_path", "lost"], "there is no checkpoint lost"),
    ],
)
def test_mistakes_are_one_line(begun, capsys, flags, words):
    _, run = begun
    assert fit(run, *flags) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmzoo: ")]
    assert len(told) == 1
    assert words in told[0]
    assert json.loads((run / "run.json").read_text())["status"] == "finished"  # that of the earlier start


def test_resume_options_without_a_resume_are_refused(config, tmp_path, capsys):
    assert fit(tmp_path / "run", "-c", str(config), "--skip_steps", "3..4") == 2
    assert "--skip_steps is for a resumed training" in capsys.readouterr().err


def test_last_without_a_run_means_the_only_one(begun, tmp_path, monkeypatch):
    _, run = begun
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"needs to know the run. Add --run runs/NAME"):
        find_checkpoint("last", None, None)
    shutil.copytree(run, tmp_path / "runs" / "tiny-20260101-000000", symlinks=True)
    assert find_checkpoint("best", None, "configs/tiny.yaml").parts[1:] == (
        "tiny-20260101-000000",
        "checkpoints",
        "best",
    )
    assert find_checkpoint("last", None, None).is_dir()
    with pytest.raises(InputError, match="needs to know the run"):
        find_checkpoint("last", None, "other.yaml")
    shutil.copytree(run, tmp_path / "runs" / "tiny-20260102-000000", symlinks=True)
    with pytest.raises(InputError, match="2 runs have checkpoints, the newest is runs/tiny-20260102-000000"):
        find_checkpoint("last", None, "tiny")
    assert find_checkpoint("runs/x/checkpoints/step_1", None, None).name == "step_1"


def test_a_damaged_last_is_refused_although_an_earlier_one_is_sound(begun, capsys):
    _, run = begun
    target = run / "checkpoints/step_00000004/trainer.ckpt"
    target.write_bytes(target.read_bytes()[:-1])
    assert fit(run, "--ckpt_path", "last", "--trainer.max_steps", "6") == 2
    told = capsys.readouterr().err
    assert "step_00000004 is damaged: trainer.ckpt has" in told
    assert "step_00000003 in" in told
    (run / "checkpoints/step_00000004/DONE").unlink()
    assert fit(run, "--ckpt_path", "last", "--trainer.max_steps", "6") == 2
    assert "step_00000004 is not a finished checkpoint: it has no DONE" in capsys.readouterr().err
    point(run / "checkpoints", LAST, "step_00000003")
    assert fit(run, "--ckpt_path", "last", "--trainer.max_steps", "6") == 0


def test_differences_are_flat_and_leave_out_what_belongs_to_one_start():
    before = {"run": "a", "trainer": {"default_root_dir": "x", "max_steps": 4}, "data": {"init_args": {"seed": 1}}}
    now = {"run": "b", "trainer": {"default_root_dir": "y", "max_steps": 4, "devices": 2}, "data": {"init_args": {}}}
    found = differences(before, now)
    assert found == [("data.init_args.seed", 1, None), ("trainer.devices", None, 2)]
    lines = difference_table(found).splitlines()
    assert [line.split() for line in lines] == [
        ["setting", "checkpoint", "now"],
        ["data.init_args.seed", "1", "-"],
        ["trainer.devices", "-", "2"],
    ]


def test_ranges_and_consents_are_read():
    assert step_ranges("3..5, 9..9") == [(3, 5), (9, 9)]
    assert step_ranges(None) == []
    assert consents("seed,shards", ("seed", "shards")) == ["seed", "shards"]
    for text in ("5..3", "0..4", "a"):
        with pytest.raises(InputError, match="is not a range"):
            step_ranges(text)

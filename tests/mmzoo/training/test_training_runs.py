"""Whole runs of the tiny training, through the command's own entry point."""

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from safetensors.torch import load_file

from mmzoo.cli import main
from mmzoo.training.checkpoint_folder import finished, resolve_checkpoint, verify


def fit(config, run, *flags, verb="fit"):
    return main([verb, "-c", str(config), "--run", str(run), *flags])


def weights(checkpoint):
    return load_file(str(checkpoint / "model" / "model.safetensors"))


def trainer_state(checkpoint):
    return torch.load(checkpoint / "trainer.ckpt", weights_only=True)


def equal(a, b):
    """Bit-equality of nested states; the tensors of NaN-free trainings."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def table(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, request):
    """The config and run folder of one uninterrupted training of 8 steps, epochs of 3; not to be written to."""
    return {}


@pytest.fixture
def whole(finished_run, config, tmp_path_factory):
    if not finished_run:
        folder = tmp_path_factory.mktemp("whole")
        shutil.copy(config, folder / "tiny.yaml")
        assert fit(folder / "tiny.yaml", folder / "run") == 0
        finished_run.update(config=folder / "tiny.yaml", run=folder / "run")
    return finished_run


def test_a_run_folder_holds_everything(whole):
    run = whole["run"]
    checkpoint = run / "checkpoints" / "last"
    assert str(checkpoint.readlink()) == "step_00000008"
    assert str((run / "checkpoints" / "best").readlink()) == "step_00000006"
    names = {"trainer.ckpt", "data_state.json", "rng.safetensors", "config.yaml", "DONE", "model"}
    assert {path.name for path in checkpoint.iterdir()} == names
    assert json.loads((checkpoint / "data_state.json").read_text())["position"] == 32
    assert set(verify(checkpoint)["files"]) >= {"trainer.ckpt", "model/model.safetensors", "model/config.json"}
    assert not [path for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["steps"] == 8
    assert record["metrics"].keys() >= {"train/loss", "val/loss"}
    assert record["versions"]["lightning"]
    assert len(record["data"]["identity"]) == 64
    assert (run / "tensorboard").is_dir()
    assert (run / "config.yaml").read_text() == next(run.glob("config.2*.yaml")).read_text()


def test_the_model_folder_tells_of_its_run_and_of_its_own_validation(whole):
    """Steps 3 and 6 were validated, on 7 samples; the weights of other steps were not measured."""
    run = whole["run"]
    record = json.loads((run / "run.json").read_text())
    for row in table(run):
        folder = run / "checkpoints" / f"step_{int(row['step']):08}" / "model"
        card, zoo = (folder / "README.md").read_text(), json.loads((folder / "zoo.json").read_text())
        assert (zoo["family"], zoo["variant"], zoo["run"]["step"]) == ("tiny_for_tests", None, int(row["step"]))
        assert zoo["run"]["data"]["identity"] == record["data"]["identity"]
        assert (zoo["run"]["seed"], zoo["run"]["config_sha256"]) == (3, record["config_sha256"])
        assert "- Command: `mmzoo fit -c tiny.yaml --run run`" in card
        assert str(run.parent) not in card + json.dumps(zoo)
        if row["val/loss"]:
            assert zoo["run"]["metrics"] == {"val/loss": pytest.approx(float(row["val/loss"]), rel=1e-12)}
            assert f"| val/loss | {float(row['val/loss']):.6g} | 7 |" in card
        else:
            assert "Not measured." in card
            assert "metrics" not in zoo["run"]


def test_files_of_a_checkpoint_follow_the_umask(whole, tmp_path):
    (tmp_path / "plain").touch()
    expected = (tmp_path / "plain").stat().st_mode
    files = [path for path in (whole["run"] / "checkpoints" / "step_00000006").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"trainer.ckpt", "rng.safetensors", "model.safetensors", "zoo.json"}
    assert [path.name for path in files if path.stat().st_mode != expected] == []


def test_the_table_has_training_and_validation_columns(whole):
    rows = table(whole["run"])
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 9)]
    assert all(row["train/loss"] and row["samples_per_second"] and row["data_wait_share"] for row in rows)
    assert [row["step"] for row in rows if row["val/loss"]] == ["3", "6"]


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_resumed_equals_uninterrupted(whole, step, tmp_path):
    """Mid-epoch, at the end of an epoch with validation, and right after one: weights, optimiser, data, numbers."""
    assert fit(whole["config"], tmp_path, "--ckpt_path", str(whole["run"] / f"checkpoints/step_{step:08}")) == 0
    compare(whole["run"], tmp_path, step)


def compare(whole_run, run, step):
    for name in [path.name for path in finished(whole_run / "checkpoints") if int(path.name[5:]) > step]:
        ours, theirs = run / "checkpoints" / name, whole_run / "checkpoints" / name
        assert equal(weights(ours), weights(theirs)), name
        a, b = trainer_state(ours), trainer_state(theirs)
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
            assert equal(a[key], b[key]), (name, key)
        assert equal(load_file(str(ours / "rng.safetensors")), load_file(str(theirs / "rng.safetensors"))), name
        assert (ours / "data_state.json").read_text() == (theirs / "data_state.json").read_text()
    names = ("step", "epoch", "train/loss", "val/loss")
    numbers = [[[row.get(name, "") for name in names] for row in table(folder)] for folder in (whole_run, run)]
    assert numbers[1] == [row for row in numbers[0] if int(row[0]) > step]


def test_a_resume_continues_its_own_run(whole, tmp_path, monkeypatch, capsys):
    """The run that is resumed is found from the checkpoint; abandoned steps leave the table; workers change nothing."""
    run = tmp_path / "run"
    shutil.copytree(whole["run"], run, symlinks=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    command = ["fit", "-c", str(whole["config"]), "--ckpt_path", str(run / "checkpoints/step_00000004")]
    assert main([*command, "--data.init_args.workers", "1"]) == 0
    assert capsys.readouterr().out == ""
    assert not list(elsewhere.iterdir())
    assert [row["step"] for row in table(run)] == [str(step) for step in range(1, 9)]
    assert json.loads((run / "run.json").read_text())["resumed_from"].endswith("step_00000004")
    assert not (run / "earlier").exists()
    for name in ("step_00000005", "step_00000008"):
        assert equal(weights(run / "checkpoints" / name), weights(whole["run"] / "checkpoints" / name))


def in_new_process(folder, *arguments):
    """The command as a user starts it, in another working directory."""
    script = Path(__file__).with_name("run_command.py")
    environment = {**os.environ, "PYTHONPATH": f"{script.parents[3]}:{script.parent}"}
    done = subprocess.run(
        [sys.executable, str(script), *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def test_two_ranks_read_one_sequence_and_measure_one_number(whole, config, tmp_path, capsys):
    flags = ["--run", str(tmp_path / "run"), "--trainer.max_steps", "3", "--trainer.devices", "2"]
    done = in_new_process(tmp_path, "fit", "-c", str(config), *flags, "--trainer.strategy", "ddp")
    assert "sync_dist" not in done.stderr  # what is logged is of all ranks already
    assert "deprecated" not in done.stderr
    checkpoint = tmp_path / "run/checkpoints/last"
    assert json.loads((checkpoint / "data_state.json").read_text())["position"] == 12
    assert {name.split(".")[0] for name in load_file(str(checkpoint / "rng.safetensors"))} == {"rank0", "rank1"}
    measured = json.loads((tmp_path / "run/run.json").read_text())["metrics"]["val/loss"]
    assert json.loads((checkpoint / "model/zoo.json").read_text())["run"]["samples"] == 7
    capsys.readouterr()
    assert fit(config, tmp_path / "one", "--ckpt_path", str(checkpoint), verb="validate") == 0
    assert json.loads(capsys.readouterr().out)["val/loss"] == pytest.approx(measured, rel=1e-6)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "one"}


def test_a_resumed_run_can_be_resumed(whole, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert fit(whole["config"], first, "--ckpt_path", str(whole["run"] / "checkpoints/step_00000002")) == 0
    assert fit(whole["config"], second, "--ckpt_path", str(first / "checkpoints/step_00000005")) == 0
    compare(whole["run"], second, 5)


def test_validation_is_a_mean_over_samples_not_over_batches(whole, tmp_path, capsys):
    """7 samples as 4 + 3, as 5 + 2 and as one batch."""
    found = []
    for batch in ("4", "5", "7"):
        flags = ["--ckpt_path", str(whole["run"] / "checkpoints/best"), "--data.init_args.val_batch", batch]
        assert fit(whole["config"], tmp_path, *flags, verb="validate") == 0
        found.append(json.loads(capsys.readouterr().out)["val/loss"])
    assert found == pytest.approx([found[0]] * 3, rel=1e-6)


def test_accumulated_batches_count_when_the_optimiser_steps(config, tmp_path):
    assert fit(config, tmp_path, "--trainer.accumulate_grad_batches", "2", "--data.init_args.steps_per_epoch", "4") == 0
    positions = [
        json.loads((path / "data_state.json").read_text())["position"] for path in finished(tmp_path / "checkpoints")
    ]
    assert positions == [8 * step for step in range(1, 9)]
    assert [row["step"] for row in table(tmp_path)] == [str(step) for step in range(1, 9)]


def test_a_checkpoint_is_written_after_the_validation_of_its_step(config, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(
        "mmzoo.training.checkpoints.save_checkpoint",
        lambda trainer, module, folder: saved.append((trainer.global_step, "val/loss" in trainer.callback_metrics)),
    )
    monkeypatch.setattr("mmzoo.training.checkpoint_folder.point", lambda *_: None)
    assert fit(config, tmp_path, "--trainer.max_steps", "4") == 0
    assert saved == [(1, False), (2, False), (3, True), (4, True)]


def test_our_own_fault_keeps_its_trace_and_is_recorded(config, tmp_path):
    with pytest.raises(RuntimeError, match="the third step fails"):
        fit(config, tmp_path, "--model", "tiny_training.FailingTraining")
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["status"], record["steps"]) == ("failed", 2)
    assert record["error"] == "RuntimeError: the third step fails"
    assert len(table(tmp_path)) == 2
    assert resolve_checkpoint(tmp_path / "checkpoints" / "last").name == "step_00000002"


@pytest.mark.parametrize("part", ["lightning.pytorch.Trainer.save_checkpoint", "mmzoo.training.rng_state.save"])
@pytest.mark.parametrize("save", [2, 4])
def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(whole, tmp_path, monkeypatch, capsys, part, save):
    """In the middle of a run (its step 6) the checkpoint is left out; the last one (step 8) may not be missing."""
    calls, real = [], resolve_name(part)

    def full_at_that_save(*arguments):
        calls.append(part)
        if len(calls) == save:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(part, full_at_that_save)
    last = save == 4
    command = ["--ckpt_path", str(whole["run"] / "checkpoints/step_00000004")]
    assert fit(whole["config"], tmp_path, *command) == (2 if last else 0)
    lines = [line for line in capsys.readouterr().err.splitlines() if "cannot be written" in line]
    assert len(lines) == 1
    assert lines[0].startswith("mmzoo: " if last else "note: ")
    assert f"checkpoints/step_0000000{save + 4} cannot be written (No space left on device). Free space" in lines[0]
    kept = {"step_00000005", "step_00000006", "step_00000007", "step_00000008"} - {f"step_0000000{save + 4}"}
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"last", *kept, *(["best"] if last else [])}
    assert resolve_checkpoint(tmp_path / "checkpoints/last").name == max(kept)
    assert json.loads((tmp_path / "run.json").read_text())["status"] == ("failed" if last else "finished")


def test_progress_is_plain_lines_on_stderr(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mmzoo.training.progress.LINE_SECONDS", 0.0)
    assert fit(config, tmp_path, "--trainer.max_steps", "3") == 0
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3", "3/3"]
    assert "val/loss 0." in lines[-1]
    assert captured.out == ""
    assert not [word for word in ("Tip", "GPU available", "Seed set", "stopped:", "arning:") if word in captured.err]


def test_the_same_command_works_twice(config, tmp_path, capsys):
    run = tmp_path / "run"
    for _ in range(2):
        assert fit(config, run, "--trainer.max_steps", "2", "--checkpoint.every_n_steps", "0") == 0
    assert len(list(run.glob("config.2*.yaml"))) == 2
    assert [path.name for path in finished(run / "checkpoints")] == ["step_00000002"]
    assert {path.name for path in next((run / "earlier").iterdir()).iterdir()} == {
        "checkpoints",
        "metrics.csv",
        "tensorboard",
        "run.json",
        "data_steps.json",
    }
    assert len(table(run)) == 2
    assert "the earlier training" in capsys.readouterr().err


def test_only_the_newest_and_the_best_are_kept(config, tmp_path):
    assert fit(config, tmp_path / "run", "--checkpoint.keep", "1") == 0
    assert [path.name for path in finished(tmp_path / "run/checkpoints")] == ["step_00000006", "step_00000008"]


def test_weights_only_start(whole, config, tmp_path):
    source = whole["run"] / "checkpoints" / "best"
    for given in (source, source / "model"):
        flags = ["--init_from", str(given), "--trainer.max_steps", "1", "--model.init_args.optimizer.lr", "0"]
        assert fit(config, tmp_path / "run", *flags) == 0
        checkpoint = tmp_path / "run/checkpoints/last"
        assert equal(weights(checkpoint), weights(source))
        assert json.loads((checkpoint / "data_state.json").read_text())["position"] == 4


def test_validate_prints_metrics_as_json(whole, capsys):
    flags = ["--ckpt_path", "best", "--run", str(whole["run"])]
    assert main(["validate", "-c", str(whole["config"]), *flags]) == 0
    printed = json.loads(capsys.readouterr().out)
    trained = next(row["val/loss"] for row in table(whole["run"]) if row["step"] == "6")
    assert printed["val/loss"] == pytest.approx(float(trained), rel=1e-12)
    assert (whole["run"] / "validate" / "run.json").is_file()
    assert json.loads((whole["run"] / "run.json").read_text())["verb"] == "fit"


def test_predict_runs(whole, tmp_path):
    assert fit(whole["config"], tmp_path, "--ckpt_path", str(whole["run"] / "checkpoints/last"), verb="predict") == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--trainer.max_steps", "many"], "command line: trainer.max_steps: must be of type int, not many"),
        (
            ["--model.init_args.optimizer.lr", "fast"],
            "command line: model.init_args.optimizer.lr: must be of type float",
        ),
        (["--trainer.max_step", "1"], "Did you mean 'max_steps'?"),
        (["--data.init_args.global_batch", "0"], "global_batch must be at least 1"),
        (["--data.init_args.index", "/nowhere"], "no shard folder at /nowhere"),
        (["--ckpt_path", "/nowhere/step_1"], "there is no checkpoint /nowhere/step_1"),
        (["--init_from", "/nowhere"], "there is no folder /nowhere"),
        (["--ckpt_path", "a", "--init_from", "b"], "exclude each other"),
        (["--trainer.strategy", "deepspeed"], "DeepSpeed does not run on CPU"),
        (
            ["--trainer.strategy", "deepspeed", "--model", "tiny_training.SeveralTraining"],
            "SeveralTraining has several",
        ),
        (["--trainer.strategy", "none"], "invalid strategy name"),
        (["--checkpoint.monitor", "val/los", "--trainer.max_steps", "3"], "Did you mean 'val/loss'?"),
        (["--run", "/proc/run"], "cannot be written"),
        (["-c"], "needs a file"),
        (["stray"], "stray"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(config, tmp_path, capsys, flags, words):
    assert main(["fit", "-c", str(config), "--run", str(tmp_path / "run"), *flags]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("mmzoo: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_no_config_and_help(capsys):
    assert main(["fit"]) == 2
    assert main(["fit", "--help"]) == 0
    assert "--init_from" in capsys.readouterr().out


def test_print_config_prints_the_merged_config(config, tmp_path, capsys):
    later = tmp_path / "later.yaml"
    later.write_text("trainer: {max_steps: 5}\n")
    assert main(["fit", "-c", str(config), "-c", str(later), "--print_config"]) == 0
    assert "max_steps: 5" in capsys.readouterr().out


def test_a_checkpoint_for_other_data_or_another_model_is_refused(whole, config, tmp_path, capsys):
    checkpoint = ["--ckpt_path", str(whole["run"] / "checkpoints/last")]
    assert fit(config, tmp_path / "run", *checkpoint, "--data.init_args.seed", "1") == 2
    assert "another order" in capsys.readouterr().err
    assert fit(config, tmp_path / "run", *checkpoint, "--model.init_args.width", "3") == 2
    assert "another model config" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["seal", "size", "content", "missing"])
def test_a_damaged_checkpoint_is_refused_with_the_reason(whole, tmp_path, damage):
    folder = tmp_path / "step_00000008"
    shutil.copytree(whole["run"] / "checkpoints" / "step_00000008", folder)
    assert resolve_checkpoint(folder) == folder
    target = folder / "model" / "model.safetensors"
    content = bytearray(target.read_bytes())
    if damage == "seal":
        (folder / "DONE").unlink()
    elif damage == "size":
        target.write_bytes(content[:-1])
    elif damage == "content":
        content[-1] ^= 1
        target.write_bytes(content)
    else:
        target.unlink()
    words = {"seal": "has no DONE", "size": "bytes instead of", "content": "sha256", "missing": "is missing"}
    with pytest.raises(Exception, match=words[damage]):
        resolve_checkpoint(folder)

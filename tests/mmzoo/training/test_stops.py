"""Signals, full disks, lost shards and files in the way: one clear line each, and the run can go on afterwards."""

import json
import os
import shutil
import signal

import pytest
from interrupted_training import stream
from killed_runs import finish, kill_group, same_checkpoints, start, table, write_config

from mmzoo.cli import main
from mmzoo.training.checkpoint_folder import finished, resolve_checkpoint

HANDLERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers():
    """Every ending gives the handlers back that it found."""
    before = [signal.getsignal(number) for number in HANDLERS]
    yield
    after = [signal.getsignal(number) for number in HANDLERS]
    for number, handler in zip(HANDLERS, before, strict=True):
        signal.signal(number, handler)
    assert after == before


def breaking(config, tmp_path, name, **arguments):
    """The tiny config with a recording module, saves every 3 steps, and a callback that breaks something."""
    callbacks = [{"class_path": f"interrupted_training.{name}", "init_args": arguments}] if name else None
    sections = {
        "trainer": {"callbacks": callbacks},
        "model": {"class_path": "interrupted_training.RecordingTraining"},
        "checkpoint": {"every_n_steps": 3},
    }
    return write_config(tmp_path / f"{name}.yaml", config, sections)


def fit(config, run, *flags):
    return main(["fit", "-c", str(config), "--run", str(run), *flags])


def resume(run, *flags):
    return main(["fit", "--run", str(run), "--ckpt_path", "last", "--trainer.callbacks", "null", *flags])


def exit_code(*command):
    with pytest.raises(SystemExit) as ending:
        fit(*command)
    return ending.value.code


@pytest.fixture(scope="module")
def recorded():
    return {}


@pytest.fixture
def whole(recorded, config, tmp_path_factory):
    """The run that nothing happened to: 8 steps, epochs of 3."""
    if not recorded:
        folder = tmp_path_factory.mktemp("recorded")
        assert fit(breaking(config, folder, ""), folder / "run") == 0
        recorded["run"] = folder / "run"
    return recorded["run"]


def lines(capfd, *beginnings):
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith(beginnings)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_one_signal_saves_at_the_end_of_the_step_and_a_resume_is_exact(whole, config, tmp_path, capfd, number, code):
    run = tmp_path / "run"
    assert exit_code(breaking(config, tmp_path, "SignalAt", number=int(number), step=5), run) == code
    told = lines(capfd, "SIG", "stopped")
    assert len(told) == 2
    assert told[0].startswith(f"{signal.Signals(number).name}: this step is finished and saved, then the run stops")
    assert told[1] == f"stopped after step 5; run folder: {run}"
    assert [path.name for path in finished(run / "checkpoints")] == ["step_00000003", "step_00000005"]
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], record["exit_code"], record["steps"]) == ("interrupted", code, 5)
    assert resume(run) == 0
    assert stream(run) == stream(whole)
    assert table(run) == table(whole)
    assert same_checkpoints(run / "checkpoints/last", whole / "checkpoints/last")


def test_a_signal_during_validation_waits_for_its_end_and_keeps_its_result(whole, config, tmp_path):
    run = tmp_path / "run"
    assert exit_code(breaking(config, tmp_path, "SignalInValidation", number=int(signal.SIGTERM)), run) == 143
    assert resolve_checkpoint(run / "checkpoints/last").name == "step_00000003"
    assert resolve_checkpoint(run / "checkpoints/best").name == "step_00000003"
    assert table(run) == table(whole)[:3]
    assert resume(run) == 0
    assert table(run) == table(whole)


def test_a_second_interrupt_stops_at_once_and_damages_nothing(whole, config, tmp_path, capfd):
    run = tmp_path / "run"
    assert exit_code(breaking(config, tmp_path, "SignalAt", number=int(signal.SIGINT), step=5, times=2), run) == 130
    told = lines(capfd, "SIG", "stopped", "Detected")
    assert len(told) == 2
    assert told[1] == f"stopped at once; saved before: {run}/checkpoints/step_00000003"
    assert json.loads((run / "run.json").read_text())["exit_code"] == 130
    assert resume(run) == 0
    assert stream(run) == stream(whole)
    assert table(run) == table(whole)


def test_a_signal_in_the_middle_of_an_accumulation_waits_for_the_update(config, tmp_path):
    run = tmp_path / "run"
    flags = ["--trainer.accumulate_grad_batches", "3", "--data.init_args.steps_per_epoch", "7"]
    stopped = breaking(config, tmp_path, "SignalAt", number=int(signal.SIGTERM), step=2)
    assert exit_code(stopped, run, *flags, "--trainer.max_steps", "5") == 143
    assert json.loads((run / "checkpoints/last/data_state.json").read_text())["position"] == 2 * 3 * 4
    assert resume(run) == 0
    # An epoch of 7 batches has two updates of 3; the next epoch goes on with the seventh batch.
    batches = {number: sum(step == number for step, _ in stream(run)) for number in range(1, 6)}
    assert batches == dict.fromkeys(range(1, 6), 4)  # the record keys by slot: the last batch of each update
    assert [json.loads(line)["step"] for line in (run / "seen.jsonl").read_text().splitlines()] == [
        *[1] * 3, *[2] * 3, *[3] * 3, *[4] * 3, *[5] * 3,
    ]  # fmt: skip


def test_sigterm_for_every_process_of_the_job(config, tmp_path):
    """A scheduler signals two ranks and their workers as well; all stop after the same step."""
    run = tmp_path / "run"
    job = write_config(
        tmp_path / "job.yaml",
        breaking(config, tmp_path, ""),
        {
            "trainer": {"devices": 2, "strategy": "ddp", "max_steps": 4000},
            "model": {"init_args": {"seconds": 0.02}},
            "data": {"init_args": {"workers": 1}},
        },
    )
    process = start(tmp_path, "fit", "-c", job, "--run", run)
    try:
        while not (run / "metrics.csv").is_file() or len(table(run)) < 10:
            assert process.poll() is None, (tmp_path / "stderr.txt").read_text()
        os.killpg(process.pid, signal.SIGTERM)
        assert finish(process) == 143, (tmp_path / "stderr.txt").read_text()
    finally:
        kill_group(process)
    step = json.loads((run / "run.json").read_text())["steps"]
    assert resolve_checkpoint(run / "checkpoints/last").name == f"step_{step:08}"
    assert sorted(stream(run))[-4:] == [(step, slot) for slot in range(4)]
    told = [line for line in (tmp_path / "stderr.txt").read_text().splitlines() if line.startswith(("SIG", "stopped"))]
    assert len(told) == 2


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_nothing_else(whole, config, tmp_path, small_disk, capfd):
    run = small_disk / "run"
    filling = breaking(config, tmp_path, "FillDisk", folder=str(small_disk), first=2, last=5)
    assert fit(filling, run, "--checkpoint.every_n_steps", "1", "--checkpoint.keep", "2") == 0
    told = lines(capfd, "note: ", "mmzoo: ")
    assert [f"no room for {run}/checkpoints/step_0000000{step}: it needs 0" in "".join(told) for step in (3, 4, 5)] == [
        True
    ] * 3
    assert "metrics.csv cannot be written (No space left on device); its rows wait in memory" in "".join(told)
    assert [path.name for path in finished(run / "checkpoints")] == [f"step_0000000{step}" for step in (6, 7, 8)]
    assert table(run) == table(whole)
    assert stream(run) != {}


def test_a_disk_that_stays_full_ends_the_run_with_its_last_checkpoint_whole(whole, config, tmp_path, small_disk, capfd):
    run = small_disk / "run"
    filling = breaking(config, tmp_path, "FillDisk", folder=str(small_disk), first=5, last=99)
    assert fit(filling, run) == 2
    told = lines(capfd, "mmzoo: ")
    assert len(told) == 1
    assert f"no room for {run}/checkpoints/step_00000008: it needs" in told[0]
    assert "Traceback" not in "".join(told)
    assert resolve_checkpoint(run / "checkpoints/last").name == "step_00000003"
    (small_disk / "filler").unlink()
    assert resume(run) == 0
    assert table(run) == table(whole)
    assert same_checkpoints(run / "checkpoints/last", whole / "checkpoints/last")


@pytest.mark.parametrize("name", ["", "checkpoints", "tensorboard", "metrics.csv", "data_steps.json"])
def test_something_of_another_kind_in_the_way_is_one_line(config, tmp_path, capfd, name):
    """A file where the run folder or a part of it should be, a folder where a file should be."""
    run = tmp_path / "run"
    if not name:
        run.write_text("not a folder")
    elif "." in name:
        (run / name / "child").mkdir(parents=True)
    else:
        run.mkdir()
        (run / name).write_text("not a folder")
    if name:
        (run / "run.json").write_text("{}")  # so that it is a run folder at all
    assert fit(config, run, "--ckpt_path", "nowhere") == 2
    capfd.readouterr()
    # A fresh start moves what it finds aside; only what it cannot move is refused.
    code = fit(config, run, "--trainer.max_steps", "2")
    told = lines(capfd, "mmzoo: ")
    if name:
        assert (code, told) == (0, [])
        assert (next((run / "earlier").iterdir()) / name).exists()
    else:
        assert code == 2
        assert len(told) == 1
        assert f"the run folder {run} cannot be read (Not a directory)" in told[0]


def test_a_shard_that_vanishes_is_one_line_and_the_run_goes_on_when_it_is_back(config, tmp_path, capfd):
    import numpy as np
    from PIL import Image

    from data_engine.build import BuildSettings, build_image_shards

    pictures, shards = tmp_path / "pictures", tmp_path / "shards"
    pictures.mkdir()
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number:02}.png")
    build_image_shards(BuildSettings(pictures, shards, val_fraction=0.1, shard_bytes=4000))
    losing = write_config(
        tmp_path / "tiny.yaml",
        breaking(config, tmp_path, "LoseShards", folder=str(shards), step=5),
        {"data": {"init_args": {"index": str(shards), "steps_per_epoch": 100}}},
    )
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert fit(losing, whole, "--trainer.callbacks", "null") == 0
    capfd.readouterr()
    assert fit(losing, run) == 2
    told = lines(capfd, "mmzoo: ")
    assert len(told) == 1
    assert "No such file or directory" in told[0]
    assert "shard-0000" in told[0]
    assert len(finished(run / "checkpoints")) >= 1
    for shard in shards.glob("*.gone"):
        shutil.move(shard, shard.with_suffix(".tar"))
    assert resume(run) == 0
    assert stream(run) == stream(whole)
    assert table(run) == table(whole)

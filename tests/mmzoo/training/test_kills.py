"""`kill -9` at any moment: what a resume makes of it is the run that was never killed."""

import json
import os
import random
import shutil
import time

import pytest
from interrupted_training import stream
from killed_runs import finish, kill_when, rows_written, same_checkpoints, start, table, write_config

from mmzoo.cli import main
from mmzoo.training.checkpoint_folder import verify

STEPS = 24
SLOW = 0.03  # seconds a step, so that a kill can hit any of them


@pytest.fixture(scope="module")
def unbroken(shards, tmp_path_factory):
    """(config, run) of a training that nobody interrupted: epochs of 5 steps, a checkpoint every 3 steps, 2 workers."""
    folder = tmp_path_factory.mktemp("unbroken")
    base = folder / "base.yaml"
    base.write_text("{}")
    transform = {"class_path": "tiny_training.MeanColour", "init_args": {"noise": 0.1}}
    config = write_config(
        folder / "tiny.yaml",
        base,
        {
            "seed_everything": 3,
            "trainer": {"accelerator": "cpu", "max_steps": STEPS, "log_every_n_steps": 1},
            "model": {
                "class_path": "interrupted_training.RecordingTraining",
                "init_args": {"seconds": SLOW, "optimizer": {"lr": 1e-2, "schedule": "cosine", "warmup_steps": 2}},
            },
            "data": {
                "class_path": "mmzoo.training.data_module.ShardData",
                "init_args": {
                    "index": str(shards), "transform": transform, "global_batch": 4, "steps_per_epoch": 5, "workers": 2,
                },
            },
            "checkpoint": {"every_n_steps": 3, "keep": 20},
        },
    )  # fmt: skip
    assert main(["fit", "-c", str(config), "--run", str(folder / "run")]) == 0
    return config, folder / "run"


def resume(run, *flags):
    return main(["fit", "--run", str(run), "--ckpt_path", "last", *flags])


def check_whole(killed, unbroken):
    """Unchanged topology: losses, checkpoints and stream are those of the unbroken run."""
    assert stream(killed) == stream(unbroken)
    assert table(killed) == table(unbroken)
    assert same_checkpoints(killed / "checkpoints/last", unbroken / "checkpoints/last")
    assert not list(killed.rglob(".*")), "leftovers"


def kill_somewhere(config, folder, chance):
    """A run killed after a random step and a random part of the next one; the step of its last checkpoint."""
    run = folder / "run"
    process = start(folder, "fit", "-c", config, "--run", run)
    after = chance.randrange(4, STEPS - 3)
    assert kill_when(process, lambda: rows_written(run) >= after, delay=chance.random() * 3 * SLOW)
    for checkpoint in (run / "checkpoints").glob("step_*"):
        verify(checkpoint)
    return json.loads((run / "checkpoints/last/DONE").read_text())["step"]


def test_killed_in_an_epoch_and_resumed_on_any_topology(unbroken, tmp_path, capsys):
    """1 rank x 2 workers is killed; goes on as 1 x 2 (to the bit), 1 x 0 and 2 x 1 (the same stream)."""
    config, whole = unbroken
    kill_somewhere(config, tmp_path, random.Random(20261124))
    for name in ("same", "alone", "two"):
        shutil.copytree(tmp_path / "run", tmp_path / name / "run", symlinks=True)
    two = start(
        tmp_path / "two", "fit", "--run", tmp_path / "two/run", "--ckpt_path", "last", "--trainer.devices", "2",
        "--trainer.strategy", "ddp", "--data.init_args.workers", "1",
    )  # fmt: skip
    assert resume(tmp_path / "same/run") == 0
    check_whole(tmp_path / "same/run", whole)
    capsys.readouterr()
    assert resume(tmp_path / "alone/run", "--data.init_args.workers", "0") == 0
    differences = [line.split() for line in capsys.readouterr().err.splitlines() if line.startswith("  ")]
    assert differences == [["setting", "checkpoint", "now"], ["data.init_args.workers", "2", "0"]]
    assert finish(two) == 0, (tmp_path / "two/stderr.txt").read_text()
    for name in ("alone", "two"):
        run = tmp_path / name / "run"
        assert stream(run) == stream(whole), name
        assert [row["step"] for row in table(run)] == [row["step"] for row in table(whole)], name
    assert same_checkpoints(tmp_path / "alone/run/checkpoints/last", whole / "checkpoints/last")


@pytest.mark.parametrize(("point", "step", "kept"), [("seal", 9, 6), ("point", 9, 6), ("validation", 10, 9)])
def test_killed_in_a_save_or_a_validation(unbroken, tmp_path, capsys, point, step, kept):
    """Before the seal the checkpoint is lost; before the link moves it is not; a validation is run again."""
    config, whole = unbroken
    run = tmp_path / "run"
    breaking = write_config(
        tmp_path / "breaking.yaml",
        config,
        {"trainer": {"callbacks": [
            {"class_path": "interrupted_training.KillAt", "init_args": {"point": point, "step": step}}
        ]}},
    )  # fmt: skip
    assert finish(start(tmp_path, "fit", "-c", breaking, "--run", run)) == -9
    hidden = [path.name for path in (run / "checkpoints").glob(".*")]
    assert len(hidden) == (point == "seal")
    assert (run / "checkpoints/last").readlink().name == f"step_{kept:08}"
    capsys.readouterr()
    assert resume(run, "--trainer.callbacks", "null") == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    words = {"seal": "left by a save that was cut off", "point": "last points to step_00000009 now"}
    assert [words[point] in note for note in notes] == [True] if point in words else notes == []
    check_whole(run, whole)


def test_killed_while_building_shards(tmp_path):
    """Nothing stands at the place, and the same command works afterwards."""
    from PIL import Image

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(600):
        Image.new("RGB", (64, 64), (number % 256, number // 3, 7)).save(pictures / f"{number:03}.png")
    shards = tmp_path / "shards"
    process = start(tmp_path, "data", "build", "images", pictures, shards)

    def building():
        return any(path.stat().st_size for path in tmp_path.glob(".shards.building-*/*.tar"))

    assert kill_when(process, building)
    assert not shards.exists()
    assert main(["data", "build", "images", str(pictures), str(shards)]) == 0
    assert main(["data", "lint", str(shards)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "shards", "stderr.txt"}


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_killed_at_random(unbroken, tmp_path, number):
    """Ten kills at random moments, each run killed once more after its first resume. A failure names its seed."""
    config, whole = unbroken
    seed = int(os.environ.get("MMZOO_KILL_SEED", time.time_ns())) + number
    chance = random.Random(seed)
    print(f"MMZOO_KILL_SEED={seed - number}, kill {number}")
    kill_somewhere(config, tmp_path, chance)
    run = tmp_path / "run"
    before = rows_written(run)
    again = start(tmp_path, "fit", "--run", run, "--ckpt_path", "last")
    goal = chance.randrange(before + 1, STEPS + 1)
    kill_when(again, lambda: f"\n{goal}," in (run / "metrics.csv").read_text() or again.poll() == 0)
    if chance.random() < 0.5:
        assert resume(run) == 0
        check_whole(run, whole)
    else:
        assert resume(run, "--data.init_args.workers", "0") == 0
        assert stream(run) == stream(whole)
        assert table(run) == table(whole)

"""The run folder: one training at a time, and no trace of a start that was a mistake."""

import os
import signal
from datetime import timedelta

import pytest
import torch.distributed as dist
from killed_runs import kill_group, rows_written, start, wait_for, write_config

from mmzoo.cli import main
from mmzoo.errors import InputError
from mmzoo.folder_lock import LOCK_FILE, only_writer
from mmzoo.hub.source import find_source
from mmzoo.training.ranks import agreed_name, is_first_process
from mmzoo.training.run_files import RECORD_FILE
from mmzoo.training.run_record import refuse_foreign, save_config


def test_a_second_training_is_kept_out_until_the_first_is_dead(config, tmp_path, capsys):
    slow = write_config(
        tmp_path / "slow.yaml",
        config,
        {
            "model": {"class_path": "interrupted_training.RecordingTraining", "init_args": {"seconds": 0.2}},
            "trainer": {"max_steps": 500},
            "data": {"init_args": {"workers": 2}},
        },
    )
    run = tmp_path / "run"
    first = start(tmp_path, "fit", "-c", slow, "--run", run)
    try:
        wait_for(first, lambda: (run / "checkpoints" / "last").exists())
        for flags in (["-c", str(config)], ["--ckpt_path", "last"]):
            assert main(["fit", "--run", str(run), *flags]) == 2
            error = capsys.readouterr().err
            assert f"{run} is in use for another training by process {first.pid} on " in error
            assert "or choose another folder with --run" in error
        assert main(["validate", "--run", str(run), "--ckpt_path", "last"]) == 0
        assert first.poll() is None
        written = rows_written(run)
        os.kill(first.pid, signal.SIGKILL)  # its workers live on for some seconds
        first.wait()
        assert main(["fit", "--run", str(run), "--ckpt_path", "last", "--trainer.max_steps", str(written + 4)]) == 0
    finally:
        kill_group(first)
    assert not (run / LOCK_FILE).exists()
    assert rows_written(run) == written + 4


def test_a_resume_elsewhere_leaves_a_training_run_untidied(config, tmp_path):
    assert main(["fit", "-c", str(config), "--run", str(tmp_path / "one"), "--trainer.max_steps", "2"]) == 0
    half = tmp_path / "one" / "checkpoints" / ".step_00000003.0123abcd"
    half.mkdir()
    resume = ["fit", "--ckpt_path", str(half.parent / "last"), "--trainer.max_steps", "3"]
    with only_writer(tmp_path / "one", "a test", "Wait"):
        assert main([*resume, "--run", str(tmp_path / "two")]) == 0
        assert half.exists()
    assert main([*resume, "--run", str(tmp_path / "three")]) == 0
    assert not half.exists()


@pytest.mark.parametrize(
    "mistake",
    [
        ["--data.init_args.index", "nowhere"],
        ["--data.init_args.global_batch", "-1"],
        ["--model.init_args.optimizer.lr", "fast"],
        ["--trainer.precision", "3"],
        ["--init_from", "nowhere"],
        ["--checkpoint.keep", "-1"],
    ],
)
def test_a_mistake_before_the_first_step_leaves_no_folder(mistake, config, tmp_path, monkeypatch, capsys):
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    assert main(["fit", "-c", str(config), *mistake]) == 2, capsys.readouterr().err
    assert list(place.iterdir()) == []
    assert main(["validate", "-c", str(config), "--run", "a/b", "--data.init_args.index", "nowhere"]) == 2
    assert list(place.iterdir()) == []


def test_a_mistake_leaves_what_was_there(config, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine.txt").touch()
    for run in ("empty", "runs/new/deep"):
        command = ["fit", "-c", str(config), "--run", str(tmp_path / run), "--data.init_args.index", "nowhere"]
        assert main(command) == 2
    assert (tmp_path / "empty").is_dir()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_a_folder_of_something_else_is_no_run_folder(verb, config, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", ".hidden"):
        (photos / name).touch()
    assert main([verb, "-c", str(config), "--run", str(photos)]) == 2
    assert f"{photos} is not empty and no run folder: it holds a.jpg, b.jpg, c.jpg, ..." in capsys.readouterr().err
    assert len(list(photos.iterdir())) == 5


@pytest.mark.parametrize("mark", [RECORD_FILE, f"validate/{RECORD_FILE}", "checkpoints/x", "earlier/x", ".DS_Store"])
def test_what_a_run_left_makes_a_run_folder(mark, tmp_path):
    (tmp_path / mark).parent.mkdir(exist_ok=True)
    (tmp_path / mark).touch()
    refuse_foreign(tmp_path)
    refuse_foreign(tmp_path / "none")
    killed = tmp_path / "killed"
    killed.mkdir()
    save_config(killed, "seed_everything: 0")  # what a start that is killed before its record leaves
    refuse_foreign(killed)


def test_processes_of_a_launcher_agree_on_the_name_of_the_run(monkeypatch):
    """torchrun keeps a store for its processes; each of them has read another clock."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    launched = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.port)}
    assert agreed_name("alone", "run") == "alone"
    for name, value in {**launched, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    found = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        found.append(agreed_name(f"tiny-00000{rank}", "run"))
    assert found == ["tiny-000000"] * 2
    with pytest.raises(InputError, match=r"cannot agree on a run folder .* Name it with --run"):
        agreed_name("tiny-000001", "never said", timedelta(milliseconds=50))
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
    with pytest.raises(InputError, match="each with a clock of its own"):
        agreed_name("tiny-000001", "run")


@pytest.mark.parametrize(
    ("places", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}, True),
        ({"RANK": "4", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "3", "SLURM_LOCALID": "0"}, False),
    ],
)
def test_the_first_process_is_known_before_ranks_talk(places, first, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is first


def test_a_refused_start_leaves_the_finished_training(config, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["fit", "-c", str(config), "--run", str(run)]) == 0
    before = sorted(path.name for path in (run / "checkpoints").iterdir())
    capsys.readouterr()
    assert main(["fit", "-c", str(config), "--run", str(run), "--data.init_args.index", str(tmp_path / "no")]) == 2
    assert "no shard folder" in capsys.readouterr().err
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == before
    assert not (run / "earlier").exists()
    assert main(["fit", "--run", str(run), "--ckpt_path", "last"]) == 0
    assert "to go on, raise --trainer.max_steps" in capsys.readouterr().err


def test_without_a_validation_the_end_is_said(config, tmp_path, capsys):
    flags = ["--trainer.max_steps", "1", "--data.init_args.steps_per_epoch", "50"]
    assert main(["fit", "-c", str(config), "--run", str(tmp_path / "run"), *flags]) == 0
    assert "step 1/1" in (said := capsys.readouterr().err)
    assert "no validation took place" in said
    with pytest.raises(InputError, match="`best` comes with the first validation"):
        find_source(tmp_path / "run" / "checkpoints" / "best")

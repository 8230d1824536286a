"""Two optimisers through the command: steps mean updates of the first one in names, tables, schedules and resumes."""

import csv
import json

import pytest
import torch
from safetensors.torch import load_file

from mmzoo.cli import main
from mmzoo.errors import InputError
from mmzoo.training.checkpoint_folder import finished
from mmzoo.training.module import UPDATE_COUNT, ZooModule

SEVERAL = ["--model", "tiny_training.SeveralTraining", "--trainer.gradient_clip_val", "0.5"]
ACCUMULATED = ["--trainer.accumulate_grad_batches", "2", "--data.init_args.steps_per_epoch", "6"]


def fit(config, run, *flags):
    assert main(["fit", "-c", str(config), "--run", str(run), *SEVERAL, *ACCUMULATED, *flags]) == 0


def rows(run):
    with (run / "metrics.csv").open() as file:
        return [
            {k: v for k, v in row.items() if k.startswith(("step", "epoch", "train", "val"))}
            for row in csv.DictReader(file)
        ]


def test_steps_are_updates_everywhere_and_a_resume_is_bit_exact(config, tmp_path):
    """8 updates of 2 batches by 2 optimisers: 32 optimiser steps, epochs of 3 updates."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    fit(config, whole)
    names = [path.name for path in finished(whole / "checkpoints")]
    assert names == [f"step_{step:08}" for step in range(1, 9)]
    assert [row["step"] for row in rows(whole)] == [str(step) for step in range(1, 9)]
    assert [row["step"] for row in rows(whole) if row["val/loss"]] == ["3", "6"]
    assert json.loads((whole / "run.json").read_text())["steps"] == 8
    for step in (1, 5, 8):
        folder = whole / f"checkpoints/step_{step:08}"
        state = torch.load(folder / "trainer.ckpt", weights_only=True)
        assert state["global_step"] == step
        assert [schedule["last_epoch"] for schedule in state["lr_schedulers"]] == [step, step]
        assert [float(next(iter(o["state"].values()))["step"]) for o in state["optimizer_states"]] == [step, step]
        assert json.loads((folder / "data_state.json").read_text())["position"] == 8 * step
    assert [group["lr"] for o in state["optimizer_states"] for group in o["param_groups"]] == [0.0] * 4

    fit(config, resumed, "--ckpt_path", str(whole / "checkpoints/step_00000004"))
    for name in names[4:]:
        ours, theirs = (load_file(str(run / f"checkpoints/{name}/model/model.safetensors")) for run in (resumed, whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert rows(resumed) == rows(whole)[4:]


def test_a_checkpoint_whose_steps_were_counted_otherwise_is_refused():
    state = {"loops": {"fit_loop": {UPDATE_COUNT: {"total": {"completed": 0}}}}, "global_step": 3}
    with pytest.raises(InputError, match="counted steps otherwise"):
        ZooModule().on_load_checkpoint(state)

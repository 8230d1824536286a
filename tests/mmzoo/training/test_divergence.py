"""A training whose numbers are no numbers any more ends with one line, and leaves the last sound checkpoint."""

import math
from types import SimpleNamespace

import pytest
import torch

from mmzoo.cli import main
from mmzoo.errors import InputError
from mmzoo.training.checkpoint_folder import BEST, LAST
from mmzoo.training.divergence import refuse_diverged_loss, refuse_diverged_weights


def fit(config, run, *flags):
    return main(["fit", "-c", str(config), "--run", str(run), *flags])


def checkpoints(run):
    return sorted(path.name for path in (run / "checkpoints").glob("step_*"))


def test_a_loss_that_is_no_number_ends_the_run_and_the_sound_checkpoint_stays(config, tmp_path, capsys):
    run = tmp_path / "run"
    flags = ("--model.init_args.optimizer.lr", "1e30", "--model.init_args.optimizer.warmup_steps", "3")
    assert fit(config, run, *flags, "--model.init_args.optimizer.schedule", "constant") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the training diverged" in line
    assert "mmzoo data why" in line
    for name in checkpoints(run):
        weights = torch.load(run / "checkpoints" / name / "trainer.ckpt", weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in weights.values()), name


def test_weights_that_are_no_numbers_are_saved_nowhere(config, tmp_path, capsys):
    run = tmp_path / "run"
    flags = ("--model.class_path", "tiny_training.BreaksItsWeights", "--checkpoint.every_n_steps", "3")
    assert fit(config, run, *flags, "--trainer.log_every_n_steps", "100") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the training diverged: at step 6 1 parameters" in line
    assert "first model.second.bias" in line
    assert "go on from" in line
    assert checkpoints(run) == ["step_00000003"]
    for link in (LAST, BEST):
        assert (run / "checkpoints" / link).resolve().name == "step_00000003"


def trainer(tmp_path):
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    return SimpleNamespace(default_root_dir=tmp_path, strategy=strategy)


def test_the_terms_are_named_that_are_no_numbers(tmp_path):
    values = {"train/loss": math.nan, "train/recon": 0.5, "train/semantic": math.inf}
    with pytest.raises(InputError, match=r"train/loss is nan at step 7 \(train/semantic inf\)"):
        refuse_diverged_loss(trainer(tmp_path), 7, values)
    refuse_diverged_loss(trainer(tmp_path), 7, {"train/loss": 3.0, "train/grad_norm": math.inf})
    refuse_diverged_loss(trainer(tmp_path), 7, {})


def test_every_rank_stops_when_one_has_diverged(tmp_path):
    sound = torch.nn.Linear(2, 2)
    fake = trainer(tmp_path)
    refuse_diverged_weights(fake, sound, 3)
    fake.strategy.reduce_boolean_decision = lambda decision, all: not all
    with pytest.raises(InputError, match="on another rank"):
        refuse_diverged_weights(fake, sound, 3)

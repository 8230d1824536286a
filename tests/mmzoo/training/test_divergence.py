"""A training whose numbers are no numbers any more ends with one line, and leaves the last sound checkpoint."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule

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
    flags = ("--model.class_path", "tiny_training.BreaksItsWeights", "--checkpoint.every_n_steps", "5")
    assert fit(config, run, *flags, "--trainer.log_every_n_steps", "100") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the training diverged: after step 5 4 tensors of the model hold" in line
    assert "first model.first.weight" in line
    assert "go on from" in line
    assert checkpoints(run) == ["step_00000003"]
    for link in (LAST, BEST):
        assert (run / "checkpoints" / link).resolve().name == "step_00000003"


def test_a_validation_that_is_no_number_ends_the_run_before_it_is_saved(config, tmp_path, capsys):
    run = tmp_path / "run"
    flags = ("--model.class_path", "tiny_training.ValidatesToNan", "--checkpoint.every_n_steps", "2")
    assert fit(config, run, *flags) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the validation after step 6 gave val/loss = nan" in line
    assert checkpoints(run) == ["step_00000002", "step_00000003", "step_00000004"]
    assert (run / "checkpoints" / BEST).resolve().name == "step_00000003"
    assert json.loads((run / "run.json").read_text())["status"] == "failed"


def trainer(tmp_path, scaler=None):
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    precision = SimpleNamespace(scaler=scaler)
    return SimpleNamespace(default_root_dir=tmp_path, strategy=strategy, precision_plugin=precision)


def test_the_terms_are_named_that_are_no_numbers(tmp_path):
    values = {"train/loss": math.nan, "train/recon": 0.5, "train/semantic": math.inf}
    with pytest.raises(InputError, match=r"train/loss is nan at step 7 \(train/semantic inf\)"):
        refuse_diverged_loss(trainer(tmp_path), 7, values)
    refuse_diverged_loss(trainer(tmp_path), 7, {"train/loss": 3.0, "train/usage": math.inf})
    refuse_diverged_loss(trainer(tmp_path), 7, {})


@pytest.mark.parametrize("name", ["train/grad_norm", "train/grad_norm_generator"])
def test_a_gradient_that_is_no_number_counts_but_where_losses_are_scaled(name, tmp_path):
    values = {"train/loss": 3.0, name: math.inf}
    with pytest.raises(InputError, match=f"{name} is inf at step 7. Lower"):
        refuse_diverged_loss(trainer(tmp_path), 7, values)
    refuse_diverged_loss(trainer(tmp_path, scaler=object()), 7, values)


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))
        self.register_buffer("count", torch.tensor(3))


def test_every_rank_stops_when_one_has_diverged(tmp_path):
    fake = trainer(tmp_path)
    refuse_diverged_weights(fake, Module(), 3)
    fake.strategy.reduce_boolean_decision = lambda decision, all: not all
    with pytest.raises(InputError, match="tensors of another rank's model hold"):
        refuse_diverged_weights(fake, Module(), 3)


@pytest.mark.parametrize(("name", "value"), [("layer.weight", math.inf), ("layer.bias", math.nan), ("mask", math.nan)])
def test_what_is_not_finite_is_named(tmp_path, name, value):
    module = Module()
    module.state_dict()[name].view(-1)[0] = value
    with pytest.raises(InputError, match=f"1 tensors of the model hold values that are not finite, first {name};"):
        refuse_diverged_weights(trainer(tmp_path), module, 3)

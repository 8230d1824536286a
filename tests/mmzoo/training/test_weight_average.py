"""Averages of the weights: the arithmetic, where they are used, and that a resume changes none of it."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mmzoo.cli import main
from mmzoo.errors import InputError
from mmzoo.training.weight_average import WeightAverage, published_weights, trained_weights

EMA = ["--ema.decay", "0.8", "--ema.warmup", "false"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.table = nn.Parameter(torch.zeros(3), requires_grad=False)  # as a quantiser's
        self.register_buffer("count", torch.zeros(1))


def trainer_of(callback, step=0):
    return SimpleNamespace(global_step=step, callbacks=[callback], is_global_zero=True)


def learn(callback, net, values):
    """Updates that set everything to the values, one after another."""
    callback.on_train_start(trainer_of(callback), net)
    for step, value in enumerate(values, 1):
        for tensor in (net.weight, net.table, net.count):
            tensor.data.fill_(value)
        callback.on_train_batch_end(trainer_of(callback, step), net, None, None, step)


@pytest.mark.parametrize(("warmup", "expected"), [(False, 0.8 * (0.2 * 1.0) + 0.2 * 2.0), (True, None)])
def test_the_average_is_a_moving_one_of_the_trained_weights_alone(warmup, expected):
    net, callback = Net(), WeightAverage(0.8, warmup)
    learn(callback, net, [1.0, 2.0])
    if expected is None:
        first = (1 - 2 / 11) * 1.0
        expected = 3 / 12 * first + (1 - 3 / 12) * 2.0
    callback.on_validation_start(None, net)
    torch.testing.assert_close(net.weight.data, torch.full((2,), expected))
    assert net.table.tolist() == [2.0] * 3
    assert net.count.tolist() == [2.0]
    callback.on_validation_end(None, net)
    assert net.weight.tolist() == [2.0, 2.0]


def test_a_save_in_the_middle_of_a_validation_takes_the_right_weights():
    net, callback = Net(), WeightAverage(0.5, warmup=False)
    learn(callback, net, [1.0])
    trainer = trainer_of(callback)
    for inside in (False, True):
        if inside:
            callback.on_validation_start(trainer, net)
        with trained_weights(trainer, net):
            assert net.weight.tolist() == [1.0, 1.0]
        with published_weights(trainer, net):
            assert net.weight.tolist() == [0.5, 0.5]
        assert net.weight.tolist() == ([0.5, 0.5] if inside else [1.0, 1.0])
    callback.on_exception(trainer, net, RuntimeError())
    assert net.weight.tolist() == [1.0, 1.0]


def test_a_training_in_low_precision_is_averaged_in_float32():
    net, callback = Net().to(torch.bfloat16), WeightAverage(0.999, warmup=False)
    learn(callback, net, [1.0] * 10)
    assert callback.average["weight"].dtype == torch.float32
    torch.testing.assert_close(callback.average["weight"], torch.full((2,), 1 - 0.999**10))
    callback.on_validation_start(None, net)
    assert net.weight.dtype == torch.bfloat16


def test_mistakes_are_named():
    for decay in (0.0, 1.0, -1.0):
        with pytest.raises(InputError, match=r"ema\.decay must lie between"):
            WeightAverage(decay)
    callback = WeightAverage(0.9)
    callback.load_state_dict({"other": torch.zeros(1)})
    with pytest.raises(InputError, match="lack weight: another config"):
        callback.on_train_start(trainer_of(callback), Net())


def fit(config, run, *flags, verb="fit"):
    return main([verb, "-c", str(config), "--run", str(run), *flags])


def content(checkpoint):
    trainer = torch.load(checkpoint / "trainer.ckpt", weights_only=True)
    return load_file(str(checkpoint / "model/model.safetensors")), trainer


def test_checkpoints_hold_both_and_a_resume_is_bit_exact(config, tmp_path, capsys):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert fit(config, whole, *EMA) == 0
    assert fit(config, resumed, *EMA, "--ckpt_path", str(whole / "checkpoints/step_00000004")) == 0
    for step in (5, 6, 8):
        ours, theirs = (content(run / f"checkpoints/step_{step:08}") for run in (resumed, whole))
        assert ours[0].keys() == theirs[0].keys()
        assert all(torch.equal(ours[0][name], value) for name, value in theirs[0].items())
        averages = [trainer["callbacks"]["WeightAverage"] for _, trainer in (ours, theirs)]
        assert averages[0].keys() == {f"model.{name}" for name in theirs[0]}
        for name, published in theirs[0].items():
            assert torch.equal(averages[0][f"model.{name}"], published)
            assert torch.equal(averages[1][f"model.{name}"], published)
            assert torch.equal(ours[1]["state_dict"][f"model.{name}"], theirs[1]["state_dict"][f"model.{name}"])
            assert not torch.equal(theirs[1]["state_dict"][f"model.{name}"], published)

    # What was validated is what was published: measured again from either.
    trained = json.loads((whole / "checkpoints/best/model/zoo.json").read_text())["run"]["metrics"]["val/loss"]
    capsys.readouterr()
    for flags in (["--ckpt_path", "best"], ["--init_from", str(whole / "checkpoints/best")]):
        assert fit(config, whole, *flags, verb="validate") == 0
        assert json.loads(capsys.readouterr().out)["val/loss"] == pytest.approx(trained, rel=1e-12)


def test_switching_it_on_or_off_at_a_resume_is_said(config, tmp_path, capsys):
    run = tmp_path / "run"
    assert fit(config, run, *EMA, "--trainer.max_steps", "3") == 0
    start = ["--ckpt_path", str(run / "checkpoints/step_00000003"), "--trainer.max_steps", "4"]
    capsys.readouterr()
    assert fit(config, tmp_path / "off", *start, "--ema.decay", "null") == 0
    assert "holds averaged weights; ema.decay is off, so they are dropped" in capsys.readouterr().err
    assert "WeightAverage" not in content(tmp_path / "off/checkpoints/last")[1]["callbacks"]
    again = ["--ckpt_path", str(tmp_path / "off/checkpoints/last"), "--trainer.max_steps", "5"]
    assert fit(config, tmp_path / "on", *EMA, *again) == 0
    assert "holds no averaged weights; they start at step 4" in capsys.readouterr().err

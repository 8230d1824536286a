"""What is left out of Lightning's steps has no effect: hooks that exist still run, and nothing else asks for GPUs."""

import inspect
import os
from types import SimpleNamespace

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from tiny_training import TinyTraining

from mmzoo.training import lean_steps
from mmzoo.training.progress import PlainProgress
from mmzoo.training.stop_signals import StopOnSignal


class OneHook(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Not empty, as far as anyone can know."""


def test_only_hooks_that_a_callback_does_not_have_are_left_out():
    own, inherited, instance = OneHook(), type("Child", (OneHook,), {})(), Callback()
    instance.on_before_backward = print
    lean_steps.leave_out_empty_hooks([own, inherited, instance, StopOnSignal()])
    for callback in (own, inherited):
        assert callable(callback.on_train_batch_end)
        assert callback.on_before_backward is None
        assert callback.on_train_batch_start is None
        assert callable(callback.on_train_start), "not called in each step"
    assert instance.on_before_backward is print
    assert all(callable(getattr(Callback(), name)) for name in lean_steps.STEP_HOOKS), "the class is as it was"


def test_lightning_passes_over_what_is_none():
    from lightning.pytorch.trainer.call import _call_callback_hooks

    seen = []
    callback = OneHook()
    callback.on_train_batch_end = lambda *values: seen.append(values)
    lean_steps.leave_out_empty_hooks([callback])
    trainer = SimpleNamespace(callbacks=[callback], lightning_module=None, profiler=lean_steps.Unprofiled())
    for hook in lean_steps.STEP_HOOKS:
        _call_callback_hooks(trainer, hook, 1)
    assert seen == [(trainer, None, 1)]


def test_the_driver_is_asked_where_there_are_gpus_only(monkeypatch):
    monkeypatch.setenv(lean_steps.ASKS_THE_DRIVER, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    lean_steps.stop_asking_for_gpus()
    assert os.environ[lean_steps.ASKS_THE_DRIVER] == "1"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lean_steps.stop_asking_for_gpus()
    assert lean_steps.ASKS_THE_DRIVER not in os.environ


def test_a_remembered_signature_is_the_signature(monkeypatch):
    def training_step(self, batch, batch_idx):
        return batch

    before = inspect.signature(training_step)
    lean_steps.remember_signature(training_step)
    assert inspect.signature(training_step) == before
    assert is_param_in_hook_signature(training_step, "batch_idx", min_args=2)
    assert not is_param_in_hook_signature(training_step, "dataloader_iter", explicit=True)


def test_plain_attributes_are_neither_parameters_nor_modules():
    module = TinyTraining()
    module.newest_loss = torch.tensor(0.25)
    module.gathering = True
    module.trainer = SimpleNamespace(world_size=1)
    assert module.gathering
    assert "newest_loss" not in module.state_dict()
    assert module.with_newest_loss({"val/loss": 1.0}) == {"val/loss": 1.0, "train/loss": 0.25}
    module.trainer = SimpleNamespace(world_size=2)
    assert module.with_newest_loss({"train/loss": 0.5}) == {"train/loss": 0.5}, "that one is over all ranks"
    module.extra = torch.nn.Linear(1, 1)
    assert "extra.weight" in module.state_dict()


def test_a_line_of_progress_shows_the_newest_loss(capsys, monkeypatch):
    module = TinyTraining()
    module.newest_loss = torch.tensor(0.25)
    module.trainer = trainer = SimpleNamespace(
        world_size=1, training=True, global_step=7, max_steps=9, loggers=[], progress_bar_metrics={"val/loss": 1.0}
    )
    bar = PlainProgress()
    monkeypatch.setattr(bar, "get_metrics", lambda *_: {"train/loss": 0.75, "val/loss": 1.0})
    bar._last -= 11
    bar.on_train_batch_end(trainer, module, None, None, 6)
    shown = capsys.readouterr().err
    assert "step 7/9" in shown
    assert "train/loss 0.25" in shown
    assert "val" not in shown

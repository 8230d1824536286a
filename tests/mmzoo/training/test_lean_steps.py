"""What is left out of Lightning's steps has no effect: hooks that exist still run, and nothing else asks for GPUs."""

import os
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from tiny_training import TinyTraining
from torch.utils.data import DataLoader

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


class MovingTraining(TinyTraining):
    """Moves its batches itself."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.moved = getattr(self, "moved", 0) + 1
        return batch


class CallsHome(TinyTraining):
    """No index in its step."""

    def training_step(self, batch):
        return super().training_step(batch, 0)


def tiny_batches(count):
    random = torch.Generator().manual_seed(0)
    made = [torch.rand(2, 192, generator=random) for _ in range(count)]
    batches = [{"pixels": p, "target": p.reshape(2, -1, 3).mean(1), "sample_ids": ["a", "b"]} for p in made]
    return DataLoader(batches, batch_size=None)


class TinyData(LightningDataModule):
    def train_dataloader(self):
        return tiny_batches(4)

    def val_dataloader(self):
        return tiny_batches(1)


def tiny_trainer(tmp_path, *callbacks):
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )


@contextmanager
def counted(monkeypatch):
    """How often Lightning asks whether something is overridden, by the name of the hook."""
    from lightning.pytorch.trainer.connectors import data_connector

    asked = Counter()
    real = data_connector.is_overridden

    def is_overridden(name, *owner):
        asked[name] += 1
        return real(name, *owner)

    with monkeypatch.context() as patch:
        patch.setattr(data_connector, "is_overridden", is_overridden)
        yield asked


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loaders and hooks
@pytest.mark.parametrize("kind", [TinyTraining, MovingTraining, CallsHome])
def test_what_is_asked_once_changes_nothing(kind, tmp_path, monkeypatch):
    trained, questions = [], []
    for callbacks in ([], [lean_steps.AskedOnce()]):
        torch.manual_seed(0)
        module = kind()
        trainer = tiny_trainer(tmp_path, *callbacks)
        with counted(monkeypatch) as asked:
            trainer.fit(module, datamodule=TinyData())
        questions.append(asked)
        assert "val/loss" in trainer.callback_metrics, "validated"
        trained.append((module.state_dict(), module.seen, getattr(module, "moved", 0)))
    often, seldom = questions
    for name in ("on_after_batch_transfer", "transfer_batch_to_device", "val_dataloader"):
        assert seldom[name] <= often[name] - 3, "four batches: once instead of four times"
    (weights, *rest), (lean_weights, *lean_rest) = trained
    assert rest == lean_rest
    assert all(torch.equal(weights[name], lean_weights[name]) for name in weights)


class StopsHere(TinyTraining):
    def losses(self, batch, turn):
        raise RuntimeError("no loss today")


@pytest.mark.filterwarnings("ignore")
def test_answers_are_forgotten_when_training_ends_or_fails(tmp_path):
    trainer = tiny_trainer(tmp_path, lean_steps.AskedOnce())
    with pytest.raises(RuntimeError, match="no loss today"):
        trainer.fit(StopsHere(), datamodule=TinyData())
    assert "_build_kwargs" not in vars(trainer.fit_loop.epoch_loop)
    moving = MovingTraining()
    trainer.fit(moving, datamodule=TinyData())
    assert moving.moved == 5, "four batches of training, one of validation"
    loop = trainer.fit_loop.epoch_loop
    assert "_build_kwargs" not in vars(loop)
    assert "is_defined" not in vars(loop.val_loop._data_source)
    assert "get_instance" not in vars(trainer._data_connector._datahook_selector)


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

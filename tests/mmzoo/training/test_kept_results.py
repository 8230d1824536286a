"""The kept table of logged values answers what Lightning's own answers, whatever is logged, reset and moved between."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from torchmetrics import MeanMetric

from mmzoo.training.kept_results import KeptResults, keep_results

#: name -> how it is logged
KINDS = {
    "step": {"on_step": True, "on_epoch": False},
    "bar": {"on_step": True, "on_epoch": False, "prog_bar": True},
    "both": {"on_step": True, "on_epoch": True, "prog_bar": True},
    "epoch": {"on_step": False, "on_epoch": True},
    "unwritten": {"on_step": True, "on_epoch": False, "logger": False},
    "metric": {"on_step": True, "on_epoch": True, "metric_attribute": "metric"},
}
QUIET = {"on_step": True, "on_epoch": True}
values = st.floats(-100, 100, width=32)
actions = st.one_of(
    st.tuples(
        st.just("log"), st.sampled_from(["training_step", "on_train_batch_end"]), st.sampled_from([*KINDS]), values
    ),
    st.tuples(st.just("reset"), st.sampled_from([None, True, False]), st.sampled_from([None, "training_step"])),
    st.tuples(st.just("cpu")),
    st.tuples(st.just("ask"), st.booleans()),
)


def plain(metrics):
    return {part: {name: float(value) for name, value in found.items()} for part, found in metrics.items()}


class Table:
    """One of the two tables, with the torchmetrics metric that is logged to it."""

    def __init__(self, results):
        self.results = results
        self.metric = MeanMetric()

    def do(self, action, *given):
        if action == "log":
            fx, name, value = given
            value = torch.tensor(value)
            if name == "metric":
                self.metric(value)
                value = self.metric
            # A metric is what moves between devices as a module does; a tensor has one.
            self.results.log(fx, name, value, batch_size=1, **KINDS[name])
        elif action == "reset":
            self.results.reset(*given)
        elif action == "cpu":
            self.results.cpu()
        return [plain(self.results.metrics(on_step)) for on_step in given] if action == "ask" else None


@settings(max_examples=60, deadline=None)
@given(st.lists(actions, max_size=12))
def test_the_kept_table_answers_as_lightnings(steps):
    ours, theirs = Table(KeptResults()), Table(_ResultCollection(training=True))
    for step in [*steps, ("ask", True), ("ask", False)]:
        assert ours.do(*step) == theirs.do(*step)
        assert plain(ours.results.metrics(True)) == plain(theirs.results.metrics(True)), "asked after each action"


def test_nothing_is_worked_out_while_nothing_is_logged(monkeypatch):
    results = KeptResults()
    results.log("training_step", "loss", torch.tensor(1.5), **KINDS["bar"])
    before = results.metrics(True)
    monkeypatch.setattr(_ResultCollection, "metrics", lambda *_: pytest.fail("worked out anew"))
    assert results.metrics(True) is before


def test_a_value_follows_to_another_device_and_everything_goes_along():
    results = KeptResults()
    results.log("training_step", "loss", torch.tensor(1.5), **QUIET)
    item = results["training_step.loss"]
    for device in ("meta", torch.device("meta")):
        item.to(torch.device("cpu"))
        assert item.value.device.type == "cpu"
        assert item.to(device) is item
        parts = (item.value, item.cumulated_batch_size, item._forward_cache)
        assert {part.device.type for part in parts} == {"meta"}
        results = KeptResults()
        results.log("training_step", "loss", torch.tensor(1.5), **QUIET)
        item = results["training_step.loss"]
    assert results.metrics(True)["callback"]["loss"].device.type == "cpu"
    results.to("meta")
    assert item.value.device.type == "meta"
    # Asked again after the move: what was kept is of before.
    assert results.metrics(True)["callback"]["loss_step"].device.type == "meta"
    with pytest.raises(NotImplementedError):  # torch's: there is nothing to copy, which shows that it was tried
        results.log("training_step", "loss", torch.tensor(1.5), **QUIET)


class Logging(LightningModule):
    """Logs now and then, in several hooks."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).sum()
        if batch_idx % 3 == 1:
            self.log("loss", loss, prog_bar=True)
            self.log("both", batch_idx, on_step=True, on_epoch=True)
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if batch_idx == 2:
            self.log("late", 2.0)

    def validation_step(self, batch, batch_idx):
        self.log("val", float(batch.sum()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Recorder(Callback):
    def __init__(self):
        self.seen = []

    def note(self, trainer, *_):
        named = (trainer.callback_metrics, trainer.logged_metrics, trainer.progress_bar_metrics)
        self.seen.append([{name: float(value) for name, value in metrics.items()} for metrics in named])

    on_train_batch_start = on_train_batch_end = on_train_epoch_end = on_validation_end = on_train_end = note


def recorded(tmp_path, kept):
    torch.manual_seed(0)
    recorder = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        val_check_interval=4,
        log_every_n_steps=2,
        num_sanity_val_steps=1,
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    if kept:
        keep_results(trainer)
        assert isinstance(trainer.fit_loop.epoch_loop._results, KeptResults)
    data = torch.utils.data.DataLoader(torch.arange(8.0)[:, None], batch_size=1)
    trainer.fit(Logging(), data, data)
    return recorder.seen


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loaders and devices
def test_a_training_sees_the_same_numbers_at_every_step(tmp_path):
    ours, theirs = recorded(tmp_path, kept=True), recorded(tmp_path, kept=False)
    assert ours == theirs
    assert any("both_epoch" in callback for callback, *_ in ours)

"""How a run shows that it lives, on stderr: Rich bars on a terminal, a line now and then elsewhere; and its speed."""

# ruff: noqa: ARG002 - a hook of Lightning is handed more than it needs
from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar

from mmzoo.training.data_module import ShardData
from mmzoo.training.module import ZooModule
from mmzoo.training.stepping import log_interval, updates
from mmzoo.training.window import micro_batches

LINE_SECONDS = 10.0


def short(metrics: Mapping[str, Any]) -> str:
    """Metrics on one line, four significant digits."""
    return "  ".join(f"{name} {float(value):.4g}" for name, value in metrics.items() if name != "v_num")


class Bars(RichProgressBar):
    """Lightning's bars, with the newest loss in each step."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        return _with_newest_loss(trainer, pl_module, super().get_metrics(trainer, pl_module))


class PlainProgress(ProgressBar):
    """One line at most every ten seconds of training, one after each validation, and one at the end without any."""

    def __init__(self) -> None:
        super().__init__()
        self._last = self._start = time.monotonic()
        self._enabled = True
        self._validated = False

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def _line(self, text: str) -> None:
        if self._enabled:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
        self._last = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = self._start = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() - self._last >= LINE_SECONDS:
            # What the last validation measured was said then; beside every later step it would look like news.
            now = _with_newest_loss(trainer, pl_module, self.get_metrics(trainer, pl_module))
            self._line(self._where(trainer) + short({n: v for n, v in now.items() if not n.startswith("val")}))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            measured = {name: v for name, v in trainer.callback_metrics.items() if name.startswith("val")}
            self._line(self._where(trainer) + short(measured))
            self._validated = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._validated:
            now = _with_newest_loss(trainer, pl_module, self.get_metrics(trainer, pl_module))
            self._line(self._where(trainer) + short(now))
            self._line("note: no validation took place, so there is no checkpoint `best`, only `last`")

    def _evaluation_batch(self, what: str, batch_idx: int) -> None:
        if time.monotonic() - self._last >= LINE_SECONDS:
            self._line(f"{what} batch {batch_idx + 1}")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._evaluation_batch("validation", batch_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._evaluation_batch("test", batch_idx)

    def _where(self, trainer: Trainer) -> str:
        total = f"/{trainer.max_steps}" if trainer.max_steps > 0 else ""
        return f"step {updates(trainer)}{total}  {time.monotonic() - self._start:.0f} s  "


def progress_callback() -> ProgressBar:
    """Rich on a terminal, plain lines where stderr is a file or a pipe."""
    return Bars(console_kwargs={"stderr": True}) if sys.stderr.isatty() else PlainProgress()


def _with_newest_loss(trainer: Trainer, module: LightningModule, metrics: Mapping[str, Any]) -> dict[str, Any]:
    return module.with_newest_loss(metrics) if trainer.training and isinstance(module, ZooModule) else dict(metrics)


class Throughput(Callback):
    """Logs `samples_per_second` (all ranks) and `data_wait_share` (of the time in the training loop) at each log step.

    Validation and saving are left out of the time.
    """

    def __init__(self) -> None:
        self._outside = 0.0
        self._left_at = 0.0
        self._reset(0.0)

    def _reset(self, wait: float) -> None:
        self._since = time.perf_counter()
        self._batches = 0
        self._outside = 0.0
        self._wait = wait

    def _waited(self, trainer: Trainer) -> float:
        data = getattr(trainer, "datamodule", None)
        return data.stream.wait_seconds if isinstance(data, ShardData) and data.stream else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset(self._waited(trainer))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._left_at = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._outside += time.perf_counter() - self._left_at

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A save begins; `on_train_batch_start` ends it."""
        self._left_at = time.perf_counter()
        self._saving = True

    _saving = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._saving:
            self._saving = False
            self._outside += time.perf_counter() - self._left_at

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batches += len(micro_batches(batch))
        if updates(trainer) % log_interval(trainer):
            return
        data = getattr(trainer, "datamodule", None)
        seconds = time.perf_counter() - self._since - self._outside
        if isinstance(data, ShardData) and seconds > 0:
            waited = self._waited(trainer)
            values = {
                "samples_per_second": self._batches * data.global_batch / seconds,
                "data_wait_share": min(1.0, (waited - self._wait) / seconds),
            }
            for logger in trainer.loggers:
                logger.log_metrics(values)
            self._reset(waited)

"""SIGTERM and Ctrl-C during training: finish the step, save, exit with 128 + the signal's number.

Lightning 2.6 exits with 0 after SIGTERM, so that a scheduler takes a killed run for a finished one, and saves nothing.
"""

# ruff: noqa: ARG002 - a hook of Lightning is handed more than it needs
from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mmzoo.training.stepping import updates

EXIT_SIGINT, EXIT_SIGTERM = 128 + signal.SIGINT, 128 + signal.SIGTERM


class StopOnSignal(Callback):
    """Turns SIGTERM or one SIGINT into a stop at the next step that all ranks agree on; FolderCheckpoint saves there.

    `stopping`: the signal that all ranks agreed on, or None. A second SIGINT stops at once (KeyboardInterrupt) and
    leaves whole what was saved before. A signal during validation is obeyed when validation has ended.
    """

    def __init__(self) -> None:
        self.stopping: int | None = None
        self._received = 0
        self._updates = 0
        self._before: dict[int, Any] = {}
        self._speaks = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._updates, self._received, self.stopping = updates(trainer), 0, None
        self._speaks = trainer.is_global_zero
        # After Lightning, which registers its own handlers just before.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before.setdefault(number, signal.signal(number, self._receive))

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._received == signal.SIGINT:
            raise KeyboardInterrupt
        if self._speaks:
            again = ". Once more stops at once" if number == signal.SIGINT else ""
            # Not through sys.stderr: the signal may have come in the middle of one of its writes.
            name = signal.Signals(number).name
            os.write(2, f"{name}: this step is finished and saved, then the run stops{again}\n".encode())
        self._received = int(number)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if updates(trainer) > self._updates:  # not between the batches of an accumulation
            self._updates = updates(trainer)
            self._agree(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._agree(trainer)

    def _agree(self, trainer: Trainer) -> None:
        received = self._received
        if trainer.world_size > 1:
            mine = torch.tensor(received, device=trainer.strategy.root_device)
            received = int(trainer.strategy.reduce(mine, reduce_op="max"))
        self.stopping = received or None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stops here and not after the step, so that the numbers of that step are written like those of any other."""
        if self.stopping is None:
            return
        if trainer.is_global_zero:
            sys.stderr.write(f"stopped after step {updates(trainer)}; run folder: {trainer.default_root_dir}\n")
        # Only the first rank tells: Lightning kills everything at once when another one ends with an error.
        raise SystemExit(128 + self.stopping if trainer.is_global_zero else 0)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Here, not in `teardown`: before that hook Lightning has put back the handlers that it found."""
        self._put_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._put_back()

    def _put_back(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)


def stopping(trainer: Trainer) -> bool:
    """Whether training stops after this step because of a signal."""
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return any(isinstance(callback, StopOnSignal) and callback.stopping is not None for callback in callbacks)


def exit_code(ending: BaseException) -> int | None:
    """The exit code of a run that a signal ended, None for another ending.

    Lightning turns a second Ctrl-C into exit code 1, and a SIGTERM that came before the first step into 0.
    """
    if isinstance(ending, KeyboardInterrupt) or isinstance(ending.__context__, KeyboardInterrupt):
        return EXIT_SIGINT
    if type(ending).__name__ == "SIGTERMException":
        return EXIT_SIGTERM
    return ending.code if isinstance(ending, SystemExit) and isinstance(ending.code, int) else None

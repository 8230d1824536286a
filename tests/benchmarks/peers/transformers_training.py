"""transformers' Trainer with its defaults and TensorBoard; it neither evaluates nor saves. Without its progress bar."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)


class InMemory:
    """Batches from memory, over and over, as a loader of `steps` batches."""

    def __init__(self, batches: Sequence[dict[str, Tensor]], steps: int) -> None:
        self.batches = batches
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (self.batches[step % len(self.batches)] for step in range(self.steps))


class TrainerOnMemory(Trainer):
    """Takes its batches as they are: no DataLoader, which would only cost it time."""

    def __init__(self, loader: InMemory, **options: Any) -> None:
        super().__init__(**options)
        self.loader = loader

    def get_train_dataloader(self) -> Any:
        return self.loader


class StepClock(TrainerCallback):
    """`seconds` between the starts of step `first` (counted from 0) and of the last one."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.seconds = 0.0
        self._start = 0.0

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        now = time.perf_counter()
        if state.global_step == self.first:
            self._start = now
        elif state.global_step == state.max_steps - 1:
            self.seconds = now - self._start


def train(
    model: PreTrainedModel,
    batches: Sequence[dict[str, Tensor]],
    steps: int,
    warmup: int,
    folder: Path,
    **options: Any,
) -> float:
    """Trains for `steps` updates. Returns seconds a step after the first `warmup`, without the last one."""
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        save_strategy="no",
        report_to="tensorboard",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    clock = StepClock(warmup)
    trainer = TrainerOnMemory(InMemory(batches, steps), model=model, args=arguments, callbacks=[clock])
    trainer.remove_callback(PrinterCallback)  # what stands in for the bar; it writes to stdout
    trainer.train()
    return clock.seconds / (steps - 1 - warmup)

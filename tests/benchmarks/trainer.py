"""What a trainer costs a step: ours, as `mmzoo fit` builds it, beside transformers' Trainer and the loop by hand.

All train the same model on the same batches from memory with AdamW and clipping. Ours logs throughput, data wait,
gradient norm and loss to CSV and TensorBoard, averages the weights, and keeps the position in the data;
transformers' logs loss, learning rate and gradient norm to TensorBoard, at the same steps.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn

from data_engine.image_shards import BuildSettings, build_image_shards
from mmzoo.training import cli
from mmzoo.training.lean_steps import ASKS_THE_DRIVER
from mmzoo.training.stepping import updates
from tests.benchmarks.peers import plain_training, transformers_training
from tests.benchmarks.record import Comparison
from tests.benchmarks.small_training import SmallTraining, batches, small_model
from tests.benchmarks.timing import in_turns

STEPS, WARMUP, ROUNDS, LOG_EVERY, CHECKED_STEPS = 550, 50, 9, 50, 150
LR, CLIP, DECAY = 1e-3, 1.0, 0.999
LEAST_RATIO = 1.0
#: Largest difference of a weight after CHECKED_STEPS: float32 sums in another order, nothing more.
TOLERANCE = 1e-5
CONFIG = """\
seed_everything: 0
model:
  class_path: tests.benchmarks.small_training.SmallTraining
  init_args: {{optimizer: {{name: adamw, lr: {lr}, betas: [0.9, 0.999], fused: true}}}}
data:
  class_path: tests.benchmarks.small_training.DataInMemory
  init_args:
    index: "{index}"
    transform: tests.benchmarks.small_training.untouched
    global_batch: 1
    steps_per_epoch: {steps}
trainer:
  accelerator: cpu
  devices: 1
  max_steps: {steps}
  gradient_clip_val: {clip}
  log_every_n_steps: {log_every}
  callbacks: [{{class_path: tests.benchmarks.trainer.StepClock}}]
checkpoint: {{every_n_steps: 0}}
ema: {{decay: {decay}}}
"""


@dataclass(frozen=True)
class Trained:
    """A finished training: milliseconds a step after the first WARMUP, and the weights by name."""

    milliseconds: float
    weights: dict[str, Tensor]


class StepClock(Callback):
    """Times what lies between the starts of step WARMUP (counted from 0) and of the last one."""

    last: ClassVar[Trained]  #: of the training that ended last

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        now = time.perf_counter()
        if updates(trainer) == WARMUP:
            self._start = now
        elif updates(trainer) == trainer.max_steps - 1:
            self._milliseconds = 1000 * (now - self._start) / (trainer.max_steps - 1 - WARMUP)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SmallTraining)
        StepClock.last = Trained(self._milliseconds, weights_of(pl_module.model))


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies, by name."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def ours(index: Path, folder: Path, steps: int) -> Trained:
    """`mmzoo fit` on a config. Its one checkpoint is saved after the last step, outside of what is timed."""
    config = folder / "config.yaml"
    settings = {"lr": LR, "clip": CLIP, "decay": DECAY, "log_every": LOG_EVERY}
    config.write_text(CONFIG.format(index=index, steps=steps, **settings))
    os.environ[ASKS_THE_DRIVER] = "1"  # as in a process that has just imported Lightning
    with contextlib.redirect_stderr(io.StringIO()):
        cli.main(["-c", str(config), "--run", str(folder / "run")], "mmzoo fit")
    check_files(folder / "run", steps)
    return StepClock.last


def check_files(run: Path, steps: int) -> None:
    """Everything that is said to be on was on: the CSV file with all columns, the events, the averaged weights."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = {"train/loss", "train/grad_norm", "samples_per_second", "data_wait_share"}
    assert [int(row["step"]) for row in rows] == list(range(LOG_EVERY, steps + 1, LOG_EVERY))
    assert all(row[name] for row in rows for name in expected), rows
    assert list((run / "tensorboard").glob("events.*"))
    trainer = torch.load(run / "checkpoints/last/trainer.ckpt", weights_only=True)
    assert trainer["callbacks"]["WeightAverage"], "no averaged weights"


def transformers_trainer(folder: Path, steps: int) -> Trained:
    """The same with transformers' Trainer."""
    os.environ.pop(ASKS_THE_DRIVER, None)  # as in a process without Lightning
    model = small_model()
    seconds = transformers_training.train(
        model,
        batches(),
        steps,
        WARMUP,
        folder,
        learning_rate=LR,
        max_grad_norm=CLIP,
        logging_steps=LOG_EVERY,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
    )
    assert list(folder.rglob("events.*")), "transformers wrote no events"
    return Trained(1000 * seconds, weights_of(model))


def by_hand(steps: int) -> Trained:
    """The same without a trainer."""
    os.environ.pop(ASKS_THE_DRIVER, None)
    model = small_model()
    return Trained(1000 * plain_training.train(model, batches(), steps, WARMUP, LR, CLIP), weights_of(model))


def contenders(root: Path, steps: int) -> dict[str, Callable[[], Trained]]:
    """By name; every call trains anew in a folder of its own."""

    def new_folder() -> Path:
        return Path(tempfile.mkdtemp(dir=root))

    return {
        "ours": lambda: ours(root / "shards", new_folder(), steps),
        "transformers": lambda: transformers_trainer(new_folder(), steps),
        "by hand": lambda: by_hand(steps),
    }


def make_index(root: Path) -> None:
    """A shard folder of one picture: every run of ours names the data it stands on."""
    (root / "pictures").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / "pictures/black.png")
    build_image_shards(BuildSettings(root / "pictures", root / "shards", val_fraction=0))


def check(trained: Mapping[str, Trained]) -> None:
    """All trained the same: weights equal but for rounding, and far from where they began."""
    begin = weights_of(small_model())
    for name, result in trained.items():
        for key, weight in trained["by hand"].weights.items():
            assert not torch.allclose(weight, begin[key], atol=100 * TOLERANCE), f"{key} was not trained"
            assert torch.allclose(result.weights[key], weight, rtol=0, atol=TOLERANCE), f"{name} trains {key} otherwise"


def compare() -> list[Comparison]:
    """The bar: no more than transformers' Trainer. The second line is what the trainer adds to the loop by hand."""
    with tempfile.TemporaryDirectory() as folder:
        make_index(Path(folder))
        check({name: train() for name, train in contenders(Path(folder), CHECKED_STEPS).items()})
        ways = contenders(Path(folder), STEPS)
        found = in_turns({name: lambda train=train: train().milliseconds for name, train in ways.items()}, ROUNDS)
    case = f"a step of {sum(p.numel() for p in small_model().parameters())} weights"
    return [
        Comparison(case, "transformers", found["ours"], found["transformers"], "ms", at_least=LEAST_RATIO),
        Comparison(case, "by hand", found["ours"], found["by hand"], "ms"),
    ]

"""What the trainers of the trainer bench train: a model so small that the trainer itself is most of a step.

The batches lie in memory, so no contender waits for data.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from data_engine.records import Sample
from mmzoo.training.data_module import ShardData, TrainStream
from mmzoo.training.loss_sums import Count, LossSum, WeightedLoss
from mmzoo.training.module import ZooModule
from mmzoo.training.optimizers import OptimizerSettings

WIDTH, DEPTH, BATCH, DISTINCT = 64, 4, 16, 32
SEED = 0


class SmallConfig(PretrainedConfig):
    model_type = "small_for_the_trainer_bench"


class SmallModel(PreTrainedModel):
    """DEPTH linear layers with biases: (B, WIDTH) float32 -> (B, WIDTH)."""

    config_class = SmallConfig

    def __init__(self, config: SmallConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))
        self.post_init()

    def forward(self, inputs: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        for layer in self.layers:
            inputs = torch.tanh(layer(inputs))
        if target is None:
            return {"output": inputs}
        return {"loss": nn.functional.mse_loss(inputs, target), "output": inputs}


def small_model() -> SmallModel:
    """The same weights at each call; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return SmallModel(SmallConfig())


def batches() -> list[dict[str, Tensor]]:
    """DISTINCT batches, the same at each call: `inputs` and `target`, float32 (BATCH, WIDTH)."""
    random = torch.Generator().manual_seed(SEED)
    made = [torch.randn(2, BATCH, WIDTH, generator=random) for _ in range(DISTINCT)]
    return [{"inputs": inputs, "target": torch.tanh(target)} for inputs, target in made]


class SmallTraining(ZooModule):
    """The model as our trainer sees it."""

    def __init__(self, optimizer: OptimizerSettings | None = None) -> None:
        super().__init__(optimizer)
        self.model = small_model()

    def loss_counts(self, batch: Any) -> Mapping[str, Count]:
        return {"error": batch["target"].numel()}

    def losses(self, batch: Any, turn: str) -> WeightedLoss:
        output = self.model(batch["inputs"])["output"]
        error = nn.functional.mse_loss(output, batch["target"], reduction="sum")
        return WeightedLoss.of(LossSum(error, batch["target"].numel()), "error")


class DataInMemory(ShardData):
    """Data with an index, as every run has, whose training batches come from memory instead; no validation."""

    def train_dataloader(self) -> TrainStream:
        self._note_order()
        self.stream = TrainStream(lambda: cycle(batches()), self.steps_per_epoch or DISTINCT)
        return self.stream

    def val_dataloader(self) -> list[Any]:
        return []


def untouched(sample: Sample, random: Any) -> dict[str, Any]:
    """The transform that the data section of a config needs; never called."""
    raise AssertionError("the batches of this bench come from memory")

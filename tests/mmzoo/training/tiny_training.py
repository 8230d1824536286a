"""The tiny model, its training and its transform; imported by class path, as a family's would be."""

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from mmzoo.training.loss_sums import LossSum, WeightedLoss
from mmzoo.training.module import ZooModule
from mmzoo.training.optimizers import OptimizerSettings


class TinyConfig(PretrainedConfig):
    model_type = "tiny_for_tests"

    def __init__(self, width: int = 4, **kwargs):
        super().__init__(**kwargs)
        self.width = width


class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.first = nn.Linear(192, config.width)
        self.second = nn.Linear(config.width, 3)
        self.post_init()

    def forward(self, pixels):
        return self.second(torch.tanh(self.first(pixels)))


class MeanColour:
    """Pixels and their mean colour, with noise that depends on the sample's position only."""

    def __init__(self, noise: float = 0.0):
        self.noise = noise

    def __call__(self, sample, random):
        pixels = sample.fields["image"].reshape(-1).astype("float32") / 255
        pixels = pixels + self.noise * random.standard_normal(192, dtype="float32")
        return {"pixels": pixels, "target": pixels.reshape(-1, 3).mean(0)}


class Pixels:
    """The middle 8 x 8 px of a larger picture, as MeanColour gives them."""

    def __call__(self, sample, random):
        image = sample.fields["image"]
        top, left = (image.shape[0] - 8) // 2, (image.shape[1] - 8) // 2
        pixels = image[top : top + 8, left : left + 8].reshape(-1).astype("float32") / 255
        return {"pixels": pixels, "target": pixels.reshape(-1, 3).mean(0)}


class TinyTraining(ZooModule):
    """Draws from the global generator in each step, so that a resume without random states cannot be equal."""

    best_metric = ("val/loss", "min")

    def __init__(self, width: int = 4, optimizer: OptimizerSettings | None = None):
        super().__init__(optimizer)
        self.model = TinyModel(TinyConfig(width=width))
        self.seen: list[str] = []

    def _loss(self, batch):
        error = (self.model(batch["pixels"]) - batch["target"]) ** 2
        return error.sum(), error.numel()

    def loss_counts(self, batch):
        return {"error": batch["target"].numel()}

    def losses(self, batch, turn):
        self.seen += batch["sample_ids"]
        batch["pixels"] = batch["pixels"] + 0.01 * torch.randn_like(batch["pixels"])
        return WeightedLoss.of(LossSum(*self._loss(batch)), "error")

    def validation_step(self, batch, batch_idx):
        self.log_ratio("val/loss", *self._loss(batch))

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        return self.model(batch["pixels"])


class FailingTraining(TinyTraining):
    def training_step(self, batch, batch_idx):
        if batch_idx == 2:
            raise RuntimeError("the third step fails")
        return super().training_step(batch, batch_idx)


class SeveralTraining(TinyTraining):
    """Two halves that take turns."""

    turns = ("first", "second")

    def optimizer_for(self, turn):
        return getattr(self.model, turn), self.optimizer_settings


class BreaksItsWeights(TinyTraining):
    """One weight becomes NaN after the fourth update, whose loss was still a number."""

    def on_train_batch_end(self, outputs, batch, batch_idx):
        super().on_train_batch_end(outputs, batch, batch_idx)
        if self.trainer.global_step == 4:
            self.model.second.bias.data[1] = float("nan")


class ValidatesToNan(TinyTraining):
    """Measures nothing from the sixth update on."""

    def validation_step(self, batch, batch_idx):
        self.log_ratio("val/loss", float("nan") if self.trainer.global_step >= 6 else 1.0, 1)

"""What the family contract test runs EvoTok with: small inputs, what to compare, what to minimise, a short training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.modeling import EvoTokOutput

#: Outputs whose first dimension is the batch: each must not depend on what else is in the batch.
PER_SAMPLE_OUTPUTS = ("latent", "codes", "reconstruction", "semantics")
#: Configuration arguments, beside those of the tiny variant, with which one batch is learnt by heart in 60 steps.
OVERFIT_SETTINGS: dict[str, Any] = {"ema_decay": 0.9}


def example_batch(config: EvoTokConfig, batch_size: int, seed: int) -> dict[str, Tensor]:
    """Smooth random images (B, 3, S, S) in [-1, 1], S = config.image_size."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch_size, 3, 4, 4, generator=random) * 2 - 1
    size = (config.image_size, config.image_size)
    return {"pixel_values": torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")}


def objective(output: EvoTokOutput, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The loss to minimise, and the part of it that must fall: the mean squared error of the pixels."""
    error = (output.reconstruction - batch["pixel_values"]).square().mean()
    return error + output.commitment_loss, error


def training_config(index: Path) -> dict[str, Any]:
    """The `model` and `data` sections of a training on the image shards at `index`, with all that a resume could lose.

    That is: codebooks that start by k-means and restart, moments and a schedule of the optimiser, random crops, and a
    discriminator that begins at the second update.
    """
    crop = {"class_path": "tokenizers_visual.evotok.crops.TrainingCrop", "init_args": {"size": 32}}
    return {
        "model": {
            "class_path": "tokenizers_visual.evotok.training.EvoTokTraining",
            "init_args": {
                "variant": "evotok/tiny",
                "overrides": {"ema_decay": 0.8, "kmeans_init": True},
                "optimizer": {"name": "adamw", "lr": 1e-3, "warmup_steps": 2, "schedule": "cosine"},
                "adversarial": {"start": 2, "discriminator": {"channels": 8, "layers": 2}},
            },
        },
        "data": {
            "class_path": "mmzoo.training.data_module.ShardData",
            "init_args": {"index": str(index), "transform": crop, "global_batch": 4},
        },
    }

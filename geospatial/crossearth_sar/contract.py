"""What the family contract test runs CrossEarth-SAR with: small inputs, what to compare, what to minimise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.modeling import CrossEarthSAROutput

#: Outputs whose first dimension is the batch: each must not depend on what else is in the batch.
PER_SAMPLE_OUTPUTS = ("last_hidden_state", "descriptors", "expert_choice")
#: Configuration arguments, beside those of the tiny variant, with which one batch is learnt by heart in 60 steps.
OVERFIT_SETTINGS: dict[str, Any] = {}
BALANCE_WEIGHT = 0.005  # lambda of the paper


def example_batch(config: CrossEarthSARConfig, batch_size: int, seed: int) -> dict[str, Tensor]:
    """Patches of a few brightnesses under single-look speckle, normalised (B, 3, S, S), S = config.image_size."""
    random = torch.Generator().manual_seed(seed)
    reflectivity = torch.rand(batch_size, 1, 4, 4, generator=random) * 0.5 + 0.05
    size = (config.image_size, config.image_size)
    scene = torch.nn.functional.interpolate(reflectivity, size=size, mode="nearest")
    speckle = -torch.rand(scene.shape, generator=random).clamp(min=1e-6).log()
    amplitude = (scene * speckle).sqrt().clamp(max=1).expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (config.image_mean, config.image_std))
    return {"pixel_values": (amplitude - mean) / std}


def objective(output: CrossEarthSAROutput, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The loss to minimise, and the part of it that must fall: each patch's mean brightness, told by its token."""
    height, width = output.feature_maps[-1].shape[-2:]
    wanted = torch.nn.functional.adaptive_avg_pool2d(batch["pixel_values"], (height, width))
    error = (output.feature_maps[-1][:, :3] - wanted).square().mean()
    balance = output.balance_sum.mean() / output.routed_tokens
    return error + BALANCE_WEIGHT * balance, error

"""Small inputs that the family contract test runs EvoTok with."""

from __future__ import annotations

import torch
from torch import Tensor

from tokenizers_visual.evotok.configuration import EvoTokConfig


def example_batch(config: EvoTokConfig, batch_size: int, seed: int) -> dict[str, Tensor]:
    """Smooth random images (B, 3, S, S) in [-1, 1], S = config.image_size."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch_size, 3, 4, 4, generator=random) * 2 - 1
    size = (config.image_size, config.image_size)
    return {"pixel_values": torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")}

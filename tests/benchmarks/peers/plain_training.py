"""The training loop that one would write by hand, without any trainer: the floor of what a step costs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel


def train(
    model: PreTrainedModel, batches: Sequence[dict[str, Tensor]], steps: int, warmup: int, lr: float, clip: float
) -> float:
    """Trains for `steps` updates, over and over through `batches`. Returns seconds a step after the first `warmup`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0, fused=True)
    start = 0.0
    for step in range(steps):
        if step == warmup:
            start = time.perf_counter()
        optimizer.zero_grad()
        model(**batches[step % len(batches)])["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return (time.perf_counter() - start) / (steps - warmup)

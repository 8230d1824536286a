"""How well a tokenizer's semantic read-out points where its teacher's features point."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def mean_cosine(features: Tensor, wanted: Tensor) -> np.ndarray:
    """Cosine (B,) in [-1, 1] between features (B, N, C) and the teacher's, mean over the N tokens, in float64.

    ValueError: other shapes, as of a teacher with another number of channels.
    """
    if features.shape != wanted.shape or features.ndim != 3:
        raise ValueError(f"features {tuple(features.shape)} and {tuple(wanted.shape)} must be one (B, N, C)")
    return F.cosine_similarity(features.double(), wanted.double(), dim=-1).mean(1).cpu().numpy()

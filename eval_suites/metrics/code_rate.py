"""How many bits the codes of an image cost: as they are stored, and as an ideal entropy coder would store them."""

from __future__ import annotations

import math

import numpy as np


def stored_bits(grid: tuple[int, int], levels: int, codebook_size: int) -> float:
    """Bits of a grid (h, w) of codes with that many levels: h * w * levels * log2(codebook size), no container."""
    return grid[0] * grid[1] * levels * math.log2(codebook_size)


def code_entropy(counts: np.ndarray) -> np.ndarray:
    """Entropy (L,) in bits a code of each level, from how often each code was used (L, K).

    What an ideal coder would need that knows these frequencies and sees each code alone: a lower bound of such coders
    on this very set (the frequencies themselves are not paid for), not what codes of other images would cost.
    """
    total = counts.sum(1, keepdims=True)
    share = counts / np.maximum(total, 1)
    logs = np.log2(share, out=np.zeros_like(share, dtype=np.float64), where=share > 0)
    return -(share * logs).sum(1) + 0.0  # no negative zero

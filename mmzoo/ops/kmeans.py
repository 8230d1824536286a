"""Plain k-means by Lloyd's iterations, in bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor

from mmzoo.ops.residual_vq import code_statistics, nearest


@torch.no_grad()
def kmeans(vectors: Tensor, clusters: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Centres (K, D) float32 of `vectors` (N, D), N >= 1; a function of the vectors and the (CPU) generator alone.

    Starts from K different vectors (all of them, over and over, when N < K). A cluster left empty restarts at a random
    vector; after the last iteration it keeps that vector, so no centre is ever far from the data.
    """
    if vectors.shape[0] == 0:
        raise ValueError("k-means needs at least one vector")
    vectors = vectors.float()
    centres = vectors[_random_rows(vectors.shape[0], clusters, generator).to(vectors.device)]
    for _ in range(iterations):
        counts, sums = code_statistics(nearest(vectors, centres), vectors, clusters)
        strays = vectors[_random_rows(vectors.shape[0], clusters, generator).to(vectors.device)]
        centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), strays)
    return centres


def _random_rows(rows: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` row numbers in random order, none repeated before all have been used."""
    rounds = -(-count // rows)
    return torch.cat([torch.randperm(rows, generator=generator) for _ in range(rounds)])[:count]

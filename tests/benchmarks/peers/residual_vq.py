"""The residual quantiser as published: the whole distance matrix of a level, and sums by a dense one-hot matrix.

Written from the description in spec evotok.md section 1.4, plainly and with no speed in mind. Not edited to suit a
figure: a change here needs a note.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def assign(latent: Tensor, tables: Tensor) -> Tensor:
    """Codes (N, L) int64 of `latent` (N, D) under `tables` (L, K, D); ties go to the lowest index."""
    residual, codes = latent, []
    for table in tables:
        codes.append(_distances(residual, table).argmin(1))
        residual = residual - table[codes[-1]]
    return torch.stack(codes, 1)


@torch.no_grad()
def assign_with_statistics(latent: Tensor, tables: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """`assign`, and of each level how often each code was used (K,) and the sum (K, D) of the vectors that chose it."""
    residual, codes, statistics = latent, [], []
    for table in tables:
        codes.append(_distances(residual, table).argmin(1))
        one_hot = torch.zeros(len(residual), len(table), dtype=residual.dtype)
        one_hot.scatter_(1, codes[-1][:, None], 1)
        statistics.append((one_hot.sum(0), one_hot.t() @ residual))
        residual = residual - table[codes[-1]]
    return torch.stack(codes, 1), statistics


def _distances(vectors: Tensor, table: Tensor) -> Tensor:
    """Squared distances (N, K): |x|^2 + |c|^2 - 2 x.c, the product added by `addmm`."""
    norms = vectors.square().sum(1, keepdim=True) + table.square().sum(1)
    return torch.addmm(norms, vectors, table.t(), alpha=-2)

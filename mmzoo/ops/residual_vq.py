"""Residual vector quantisation: every level codes what the levels before it left over.

Source: EvoTok (arXiv 2603.12108), spec section 1.4; Lee et al., RQ-VAE (arXiv 2203.01941).
`reference` and `code_statistics_reference` are the definition, `assign` and `code_statistics` the same at speed.
A tie goes to the lowest index.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmzoo.ops.exact_float32 import exact_float32

#: One block of scores. On a CPU it should stay in the last-level cache, elsewhere it should fill the device.
SCORE_BYTES = {"cpu": 8 << 20}
SCORE_BYTES_ELSEWHERE = 48 << 20

#: A product computes a short remainder of columns in another order, so equal rows of the table could score unequally
#: there and a tie go to the wrong code; a whole number of vector registers has no remainder.
COLUMN_MULTIPLE = 16

Tables = Tensor | Sequence[Tensor]


@torch.no_grad()
def reference(latent: Tensor, tables: Tables) -> Tensor:
    """Codes (N, L) int64 of `latent` (N, D) under `tables` (L, K, D), from the full squared distances (N, K)."""
    residual = latent.float()
    codes = []
    with exact_float32(latent.device.type):
        for table in tables:
            distances = (residual[:, None] - table.float()[None]).square().sum(-1)
            codes.append(distances.argmin(1))
            residual = residual - table.float()[codes[-1]]
    return torch.stack(codes, 1)


@torch.no_grad()
def assign(latent: Tensor, tables: Tables) -> Tensor:
    """Codes (N, L) int64 of `latent` (N, D) under `tables` (L, K, D): `reference` in bounded memory.

    Agrees with `reference` except where the two best distances differ by float32 rounding (below 1e-5 at unit scale).
    """
    residual = latent.float()
    codes = []
    for table in tables:
        codes.append(nearest(residual, table))
        residual = residual - table.float()[codes[-1]]
    return torch.stack(codes, 1)


@torch.no_grad()
def nearest(vectors: Tensor, table: Tensor) -> Tensor:
    """Index (N,) int64 of the row of `table` (K, D) nearest to each of `vectors` (N, D), always in true float32.

    argmin |x - c|^2 = argmax (x.c - |c|^2 / 2), in blocks of rows, so the (N, K) scores never exist as a whole.
    """
    count, size = vectors.shape[0], table.shape[0]
    codes = torch.empty(count, dtype=torch.int64, device=vectors.device)
    if count == 0:
        return codes
    vectors = vectors.float()
    padded = torch.nn.functional.pad(table.float(), (0, 0, 0, -size % COLUMN_MULTIPLE))
    rows = min(count, score_rows(padded.shape[0], vectors.device.type))
    scores = vectors.new_empty(rows, padded.shape[0])
    with exact_float32(vectors.device.type):
        offset, columns = padded.square().sum(1).mul(-0.5), padded.t()
        for start in range(0, count, rows):
            block = vectors[start : start + rows]
            block_scores = torch.addmm(offset, block, columns, out=scores[: block.shape[0]])
            torch.argmax(block_scores[:, :size], 1, out=codes[start : start + rows])
    return codes


def score_rows(codebook_size: int, device_type: str) -> int:
    """How many rows of float32 scores over `codebook_size` codes make one block on this kind of device."""
    return max(1, SCORE_BYTES.get(device_type, SCORE_BYTES_ELSEWHERE) // (4 * codebook_size))


def sum_codes(codes: Tensor, tables: Tables) -> Tensor:
    """Sum (..., D) of the vectors that `codes` (..., n) name in the first n of `tables` (L, K, D), n <= L."""
    levels = codes.shape[-1]
    if not 1 <= levels <= len(tables):
        raise ValueError(f"codes name {levels} levels, the tables have {len(tables)}")
    total = tables[0][codes[..., 0]]
    for level in range(1, levels):
        total = total + tables[level][codes[..., level]]
    return total


@torch.no_grad()
def code_statistics(codes: Tensor, residuals: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """How often each code was used (K,) and the sum (K, D) of the vectors that chose it, both float32.

    `codes` (N,) int64, `residuals` (N, D). Scattered additions instead of a (K, N) one-hot product.
    """
    counts = torch.bincount(codes, minlength=codebook_size).float()
    sums = torch.zeros(codebook_size, residuals.shape[1], dtype=torch.float32, device=residuals.device)
    return counts, sums.index_add_(0, codes, residuals.float())


@torch.no_grad()
def code_statistics_reference(codes: Tensor, residuals: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """`code_statistics` by its definition, the product with a one-hot matrix."""
    one_hot = torch.nn.functional.one_hot(codes, codebook_size).float()
    with exact_float32(residuals.device.type):
        return one_hot.sum(0), one_hot.t() @ residuals.float()


@torch.no_grad()
def code_counts(codes: Tensor, codebook_size: int) -> Tensor:
    """How often each code occurs (L, K) int64 in `codes` (..., L), level by level."""
    levels = codes.reshape(-1, codes.shape[-1]).unbind(1)
    return torch.stack([torch.bincount(level, minlength=codebook_size) for level in levels])


@torch.no_grad()
def usage_of_counts(counts: Tensor) -> tuple[Tensor, Tensor]:
    """`usage` from the counts (L, K) of `code_counts`, which may be sums over batches."""
    share = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    perplexity = torch.special.entr(share).sum(1).exp()
    return (counts > 0).double().mean(1), perplexity


@torch.no_grad()
def usage(codes: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Share of the codebook in use (L,) in [0, 1] and perplexity (L,) in [1, K] of `codes` (..., L), level by level.

    Perplexity is exp(entropy) of the code frequencies: K when all codes are equally frequent, 1 when one code is.
    """
    return usage_of_counts(code_counts(codes, codebook_size))

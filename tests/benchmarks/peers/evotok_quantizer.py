"""EvoTok's training quantiser as published: dense distances, one-hot sums, statistics that only a log reads.

Written from the description in spec evotok.md sections 1.4 and 7.3, plainly and with no speed in mind. Names of tensors
are the published ones, so that recorded states load. Not edited to suit a figure: a change here needs a note.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WINDOW = 131_072
COPY_NOISE = 0.01


class PlainCodebook(nn.Module):
    """`weight` (K + 1, D), the last row padding; moving counts `cluster_size_ema` (K,) and sums `embed_ema` (K, D)."""

    def __init__(self, size: int, dim: int, warmup: int, restart: bool, decay: float = 0.99, eps: float = 1e-5) -> None:
        super().__init__()
        self.size, self.warmup, self.restart, self.decay, self.eps = size, warmup, restart, decay, eps
        self.weight = nn.Parameter(torch.randn(size + 1, dim), requires_grad=False)
        self.weight.data[-1] = 0
        self.register_buffer("embed_ema", self.weight.data[:-1].clone())
        self.register_buffer("cluster_size_ema", torch.zeros(size))
        if warmup:
            self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def distances(self, x: Tensor) -> Tensor:
        """Squared distances (N, K) of `x` (N, D) to all codes."""
        table = self.weight[:-1].t()
        norms = x.pow(2).sum(1, keepdim=True) + table.pow(2).sum(0, keepdim=True)
        return torch.addmm(norms, x, table, alpha=-2.0)

    def statistics(self, x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Counts (K,) and sums (K, D) of `x` (N, D), by a one-hot matrix (K, N)."""
        one_hot = torch.zeros(self.size, len(x))
        one_hot.scatter_(0, codes[None], 1)
        return one_hot.sum(1), one_hot @ x

    def learn(self, x: Tensor, codes: Tensor) -> None:
        """The moving averages and the restarts; the table itself follows in `write`."""
        counts, sums = self.statistics(x, codes)
        self.cluster_size_ema.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        if self.warmup:
            if self.step >= self.warmup:
                self.embed_ema.mul_(self.decay).add_(sums, alpha=1 - self.decay)
            self.step += 1
        if self.restart:
            self._restart(x)

    def _restart(self, x: Tensor) -> None:
        if len(x) < self.size:
            copies = -(-self.size // len(x))
            x = x.repeat(copies, 1)
            x = x + torch.rand_like(x) * (COPY_NOISE / x.shape[1] ** 0.5)
        vectors = x[torch.randperm(len(x))][: self.size]
        alive = (self.cluster_size_ema >= 1).float()[:, None]
        self.embed_ema.mul_(alive).add_(vectors * (1 - alive))
        self.cluster_size_ema.mul_(alive[:, 0]).add_(1 - alive[:, 0])

    def write(self) -> None:
        """Codes = sums / smoothed counts, at least 1."""
        total = self.cluster_size_ema.sum()
        smoothed = total * (self.cluster_size_ema + self.eps) / (total + self.size * self.eps)
        self.weight.data[:-1] = self.embed_ema / smoothed.clamp(min=1)[:, None]


class PlainQuantizer(nn.Module):
    """Residual levels over one latent; partial sums of `pixel_levels` and `semantic_levels`."""

    def __init__(
        self, size: int, dim: int, pixel_levels: int, semantic_levels: int, warmup: int, restart: bool
    ) -> None:
        super().__init__()
        levels = max(pixel_levels, semantic_levels)
        self.pixel_levels, self.semantic_levels = pixel_levels, semantic_levels
        self.codebooks = nn.ModuleList(PlainCodebook(size, dim, warmup, restart) for _ in range(levels))
        self.register_buffer("codebook_used", torch.zeros(WINDOW, levels), persistent=False)
        self.usage: list[float] = []
        self.d_sem = self.d_pix = torch.zeros(())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z (B, D, h, w) -> (f_pix, f_sem) like z, commitment, codes (B, h, w, L)."""
        x = z.permute(0, 2, 3, 1)
        residual = x.detach().flatten(0, 2).clone()
        total, sums, codes = torch.zeros_like(residual), [], []
        for number, book in enumerate(self.codebooks, 1):
            code = self.assign(book, residual, number)
            if self.training:
                book.learn(residual, code)
            vectors = book.weight.data[code].clone()
            if self.training:
                book.write()
            residual, total = residual - vectors, total + vectors
            sums.append(total.view(x.shape))
            codes.append(code)
        commitment = torch.stack([(x - partial).pow(2).mean() for partial in sums]).mean()
        f_pix, f_sem = (x + (sums[n - 1] - x).detach() for n in (self.pixel_levels, self.semantic_levels))
        found = torch.stack(codes, -1).view(*x.shape[:3], -1)
        self.note_usage(found)
        return f_pix.permute(0, 3, 1, 2), f_sem.permute(0, 3, 1, 2), commitment, found

    @torch.no_grad()
    def assign(self, book: nn.Module, residual: Tensor, number: int) -> Tensor:
        """Codes (N,) of one level, from all distances."""
        distances = book.distances(residual)
        self.note_distances(distances, number)
        return distances.argmin(1)

    def note_distances(self, distances: Tensor, number: int) -> None:
        """For the log: mean over positions of the sum over the table of squared squared distances."""
        statistic = distances.pow(2).sum(1).mean()
        if number == self.semantic_levels:
            self.d_sem = statistic
        if number == self.pixel_levels:
            self.d_pix = statistic

    @torch.no_grad()
    def note_usage(self, codes: Tensor) -> None:
        """For the log: share of distinct codes among the latest WINDOW positions, level by level."""
        rows = codes.flatten(0, 2)[-WINDOW:].float()
        self.codebook_used[: -len(rows)] = self.codebook_used[len(rows) :].clone()
        self.codebook_used[-len(rows) :] = rows
        size = len(self.codebooks[0].weight) - 1
        self.usage = [len(torch.unique(column)) / size for column in self.codebook_used.unbind(1)]

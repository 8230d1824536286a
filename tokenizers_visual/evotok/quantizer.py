"""EvoTok's residual quantiser: one latent, one codebook a level, two read-outs at two depths (spec section 1.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmzoo.ops.exact_float32 import exact_float32
from mmzoo.ops.kmeans import kmeans
from mmzoo.ops.residual_vq import nearest, sum_codes
from tokenizers_visual.evotok.codebook import Codebook, QuantizerSettings
from tokenizers_visual.evotok.latent_rows import check_codes, check_latent, grid_of, planes_of, rows_of
from tokenizers_visual.evotok.level_dropout import read_out_depths
from tokenizers_visual.evotok.ranks import RowSpan, from_rank_zero

__all__ = ["QuantizerOutput", "QuantizerSettings", "ResidualQuantizer"]

KMEANS_ITERATIONS = 10
#: Side of the uniform noise that tells apart copies of a vector, in units of 1 / sqrt(D) (spec 1.4).
COPY_NOISE = 0.01


@dataclass(frozen=True)
class QuantizerOutput:
    """What one call returns; L levels, of which p are summed for pixels and s for semantics.

    codes (B, H, W, L) int64. pixel_latent, semantic_latent (B, D, H, W): the sums of p and s levels, with the gradient
    of the latent itself. commitment_loss = commitment_sum / commitment_count, the squared distance from the latent to
    each of its L partial sums, averaged over everything; add sums and counts over micro-batches to stay exact.
    partial_sums (L, B, H, W, D) or None.
    """

    codes: Tensor
    pixel_latent: Tensor
    semantic_latent: Tensor
    commitment_loss: Tensor
    commitment_sum: Tensor
    commitment_count: int
    partial_sums: Tensor | None = None


@dataclass
class _Walk:
    """What going once through the levels leaves behind, in rows (N, D) of positions."""

    codes: Tensor
    pixel_sum: Tensor
    semantic_sum: Tensor
    error: Tensor  # scalar: sum of |z - Q_i|^2 over rows and levels
    pull: Tensor  # its gradient with respect to z, 2 * sum of (z - Q_i) over levels
    partial_sums: list[Tensor]


class ResidualQuantizer(nn.Module):
    """Codes a latent (B, D, H, W) level by level; in training mode every forward also teaches the codebooks.

    All arithmetic is float32 outside autocast, so equal latents have equal codes whatever the model's dtype. The
    vectors returned come from the tables *before* the step's update. State: `levels.{d}.table|counts|sums[|step]`.
    """

    def __init__(self, settings: QuantizerSettings) -> None:
        super().__init__()
        self.settings = settings
        self.levels = nn.ModuleList(Codebook(settings) for _ in range(settings.levels))
        #: Set while more micro-batches of the same update follow: then what the codebooks would learn is kept for the
        #: last one, so that all micro-batches see the same tables and the update is that of the big batch.
        self.gathering = False

    @property
    def codebooks(self) -> list[Codebook]:
        """The levels, coarse to fine."""
        return [level for level in self.levels if isinstance(level, Codebook)]

    def forward(
        self, latent: Tensor, *, generator: torch.Generator | None = None, partial_sums: bool = False
    ) -> QuantizerOutput:
        """Quantise `latent` (B, D, H, W). `generator` (CPU) decides restarts; None = torch's global one."""
        check_latent(latent, self.settings)
        with exact_float32(latent.device.type):
            learn = self.training and not self.settings.frozen
            stops = self._stops(latent, generator)
            walk = self._walk(
                rows_of(latent.detach()), learn=learn, generator=generator, keep=partial_sums, stops=stops
            )
            exact = latent.float()
            pixel, semantic = (planes_of(total, latent) for total in (walk.pixel_sum, walk.semantic_sum))
            # Adds zero, and carries the whole gradient of the commitment in one tensor instead of one a level.
            carrier = (exact - exact.detach()) * planes_of(walk.pull, latent)
            commitment = walk.error + carrier.sum()
            count = latent.numel() * self.settings.levels
            return QuantizerOutput(
                codes=grid_of(walk.codes, latent),
                pixel_latent=(exact + (pixel - exact).detach()).to(latent.dtype),
                semantic_latent=(exact + (semantic - exact).detach()).to(latent.dtype),
                commitment_loss=commitment / max(count, 1),
                commitment_sum=commitment,
                commitment_count=count,
                partial_sums=torch.stack([grid_of(q, latent) for q in walk.partial_sums]) if partial_sums else None,
            )

    @torch.no_grad()
    def encode(self, latent: Tensor) -> Tensor:
        """Codes (B, H, W, L) int64 of `latent` (B, D, H, W). Never teaches the codebooks."""
        check_latent(latent, self.settings)
        with exact_float32(latent.device.type):
            return grid_of(self._walk(rows_of(latent), learn=False).codes, latent)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Sum (B, D, H, W) float32 of exactly the first n levels that `codes` (B, H, W, n) name, 1 <= n <= L."""
        check_codes(codes, self.settings)
        return sum_codes(codes, [level.vectors for level in self.codebooks]).permute(0, 3, 1, 2).contiguous()

    def restart_order(self, vectors: int, generator: torch.Generator | None) -> Tensor:
        """A random order (vectors,) int64: code k, if dead, becomes vector number order[k]. Rank 0 decides for all."""
        return torch.randperm(vectors, generator=generator)

    def _walk(
        self,
        latent: Tensor,
        *,
        learn: bool,
        generator: torch.Generator | None = None,
        keep: bool = False,
        stops: tuple[Tensor, Tensor] | None = None,
    ) -> _Walk:
        """Go through the levels with `latent` (N, D) float32, teaching each codebook if asked to.

        `stops`: the depths (N, 1) at which each row's pixel and semantic sums end; None = at the settings'.
        """
        residual, total = latent, torch.zeros_like(latent)
        walk = _Walk(latent.new_empty(0), total, total, latent.new_zeros(()), torch.zeros_like(latent), [])
        span = RowSpan.of(latent) if learn else RowSpan(0, 0, 0)
        fresh = learn and self._is_fresh() and span.total > 0
        codes = []
        for depth, level in enumerate(self.codebooks, start=1):
            if fresh:
                level.start_from(self._kmeans(residual, span, generator))
            codes.append(nearest(residual, level.vectors))
            vectors = level.vectors[codes[-1]]
            if span.total > 0:
                level.gather(codes[-1], residual)
            if learn and not self.gathering and level.gathered is not None:
                level.learn(self._replacements(residual, span, generator))
            total, residual = total + vectors, residual - vectors
            distance = latent - total
            walk.error += distance.square().sum()
            walk.pull.add_(distance, alpha=2)
            self._read_out(walk, depth, total, stops)
            if keep:
                walk.partial_sums.append(total)
        walk.codes = torch.stack(codes, -1)
        return walk

    def _read_out(self, walk: _Walk, depth: int, total: Tensor, stops: tuple[Tensor, Tensor] | None) -> None:
        """Takes the sum `total` (N, D) of `depth` levels for the read-outs, and the rows, that end there."""
        if stops is not None:
            walk.pixel_sum = torch.where(stops[0] == depth, total, walk.pixel_sum)
            walk.semantic_sum = torch.where(stops[1] == depth, total, walk.semantic_sum)
            return
        if depth == self.settings.pixel_levels:
            walk.pixel_sum = total
        if depth == self.settings.semantic_levels:
            walk.semantic_sum = total

    def _stops(self, latent: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor] | None:
        """With level dropout, in training: where each row's sums end, (N, 1) for pixels and for semantics."""
        share = self.settings.level_dropout
        if not (self.training and share):
            return None
        batch, _, height, width = latent.shape
        pixel, semantic = (
            read_out_depths(batch, levels, share, generator, latent.device).repeat_interleave(height * width)[:, None]
            for levels in (self.settings.pixel_levels, self.settings.semantic_levels)
        )
        return pixel, semantic

    def _is_fresh(self) -> bool:
        """Whether a k-means start is wanted and no batch was ever seen."""
        first = self.codebooks[0]
        return self.settings.kmeans_init and first.gathered is None and not bool(first.counts.any())

    def _kmeans(self, residual: Tensor, span: RowSpan, generator: torch.Generator | None) -> Tensor:
        """Centres (K, D) of the global batch's residuals, equal on every rank."""
        seed = from_rank_zero(torch.randint(2**31, (1,), generator=generator).to(residual.device))
        everything = span.pick(residual, torch.arange(span.total, device=residual.device))
        same_random = torch.Generator().manual_seed(int(seed))
        return from_rank_zero(kmeans(everything, self.settings.codebook_size, KMEANS_ITERATIONS, same_random))

    def _replacements(self, residual: Tensor, span: RowSpan, generator: torch.Generator | None) -> Tensor | None:
        """Random vectors (K, D) of the global batch, equal on every rank; noisy copies when there are fewer than K.

        Of several micro-batches, the last one's: the others' vectors are gone.
        """
        if not self.settings.restart_unused_codes or span.total == 0:
            return None
        size, dim = self.settings.codebook_size, self.settings.latent_dim
        copies = -(-size // span.total)
        order = self.restart_order(span.total * copies, generator)[:size] % span.total
        picked = span.pick(residual, from_rank_zero(order.to(residual.device)))
        if copies > 1:
            noise = torch.rand(size, dim, generator=generator).to(residual.device)
            picked = picked + from_rank_zero(noise) * (COPY_NOISE * dim**-0.5)
        return picked

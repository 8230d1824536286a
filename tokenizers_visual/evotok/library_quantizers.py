"""Other quantisers behind EvoTok's interface: ResidualVQ, ResidualFSQ and LFQ of vector-quantize-pytorch.

Their own decoding refuses a prefix of levels, so here every level is a table of vectors: the library assigns codes and
learns, and what n levels decode to is the sum of their n vectors, taken to the latent's width. Sources: Zeghidour et
al. (arXiv 2107.03312); Mentzer et al., FSQ (arXiv 2309.15505); Yu et al., LFQ (arXiv 2310.05737).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import LFQ, ResidualFSQ, ResidualVQ

from mmzoo.ops.exact_float32 import exact_float32
from mmzoo.ops.residual_vq import assign, sum_codes
from tokenizers_visual.evotok.codebook import QuantizerSettings
from tokenizers_visual.evotok.latent_rows import check_codes, check_latent, grid_of, planes_of, rows_of
from tokenizers_visual.evotok.level_dropout import read_out_depths
from tokenizers_visual.evotok.quantizer import QuantizerOutput


class LibraryQuantizer(nn.Module):
    """What the three have in common; see ResidualQuantizer for the interface, which is the same.

    d is the width of a code's vector; where it is not the latent's width D, `project_in` and `project_out` lead there
    and back, and are trained with the rest of the model. The commitment is taken in the latent's own space, from the
    latent to what each number of levels decodes to, so its terms are as many as EvoTok's.
    """

    def __init__(self, settings: QuantizerSettings, inner_dim: int) -> None:
        super().__init__()
        self.settings = settings
        self.gathering = False  #: see ResidualQuantizer; tables that learn do so from the last micro-batch alone
        self.library = self._on_default_device()
        plain = inner_dim == settings.latent_dim
        self.project_in = nn.Identity() if plain else nn.Linear(settings.latent_dim, inner_dim)
        self.project_out = nn.Identity() if plain else nn.Linear(inner_dim, settings.latent_dim)
        if settings.frozen:
            self.project_out.requires_grad_(False)  # what a code means must not move

    def _build(self) -> Any:
        """The library's module, on the CPU."""
        raise NotImplementedError

    def tables(self) -> Tensor:
        """Vectors (L, K, d) float32 of all codes."""
        raise NotImplementedError

    def bounded(self, inner: Tensor) -> Tensor:
        """The latent (N, d) as the library squeezes it before it quantises."""
        return inner

    def codes_of(self, inner: Tensor) -> Tensor:
        """Codes (N, L) int64 of (N, d). Teaches nothing."""
        raise NotImplementedError

    def learn(self, inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (N, L), the tables they were taken from, and a loss of the quantiser's own, all of a training step."""
        return self.codes_of(inner.detach()), self.tables(), inner.new_zeros(())

    def forward(
        self, latent: Tensor, *, generator: torch.Generator | None = None, partial_sums: bool = False
    ) -> QuantizerOutput:
        """Quantise `latent` (B, D, H, W). `generator` (CPU) decides level dropout; restarts draw from torch's own."""
        check_latent(latent, self.settings)
        with exact_float32(latent.device.type):
            rows = rows_of(latent)
            inner = self.project_in(rows)
            codes, tables, own_loss = self._step(inner)
            sums = torch.stack([sum_codes(codes[:, :depth], tables) for depth in range(1, codes.shape[1] + 1)])
            decoded = self.project_out(sums).detach()
            count = latent.numel() * self.settings.levels
            commitment = (rows - decoded).square().sum() + own_loss * count
            pixel, semantic = (
                self._read_out(self.bounded(inner), sums, self._depths(latent, levels, generator))
                for levels in (self.settings.pixel_levels, self.settings.semantic_levels)
            )
            return QuantizerOutput(
                codes=grid_of(codes, latent),
                pixel_latent=planes_of(pixel, latent).to(latent.dtype),
                semantic_latent=planes_of(semantic, latent).to(latent.dtype),
                commitment_loss=commitment / max(count, 1),
                commitment_sum=commitment,
                commitment_count=count,
                partial_sums=torch.stack([grid_of(total, latent) for total in decoded]) if partial_sums else None,
            )

    @torch.no_grad()
    def encode(self, latent: Tensor) -> Tensor:
        """Codes (B, H, W, L) int64 of `latent` (B, D, H, W). Never teaches anything."""
        check_latent(latent, self.settings)
        with exact_float32(latent.device.type):
            return grid_of(self.codes_of(self.project_in(rows_of(latent))), latent)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """(B, D, H, W) float32 of exactly the first n levels that `codes` (B, H, W, n) name, 1 <= n <= L."""
        check_codes(codes, self.settings)
        with exact_float32(codes.device.type):
            return self.project_out(sum_codes(codes, self.tables())).permute(0, 3, 1, 2).contiguous()

    @torch.no_grad()
    def reset_constants(self) -> None:
        """Writes the library's unsaved constants again: transformers leaves them undefined when it loads a model."""
        device = next(self.library.buffers()).device
        for module, fresh in zip(self.library.modules(), self._build().modules(), strict=True):
            for name in module._non_persistent_buffers_set:
                module._buffers[name] = fresh._buffers[name].to(device)

    def _on_default_device(self) -> Any:
        return self._build().to(torch.get_default_device())

    def _step(self, inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.training and not self.settings.frozen and inner.shape[0]:
            return self.learn(inner)
        return self.codes_of(inner.detach()), self.tables(), inner.new_zeros(())

    def _depths(self, latent: Tensor, levels: int, generator: torch.Generator | None) -> Tensor:
        """Levels that are summed for each row (N,)."""
        batch, _, height, width = latent.shape
        share = self.settings.level_dropout if self.training else 0.0
        if not share:
            return torch.full((batch * height * width,), levels, device=latent.device)
        depths = read_out_depths(batch, levels, share, generator, latent.device)
        return depths.repeat_interleave(height * width)

    def _read_out(self, bounded: Tensor, sums: Tensor, depths: Tensor) -> Tensor:
        """Latents (N, D) from the sums (L, N, d) at each row's depth, with the gradient of `bounded` (N, d)."""
        total = sums[depths - 1, torch.arange(len(depths), device=sums.device)]
        return self.project_out(bounded + (total - bounded).detach())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LibraryQuantizer:
        def keep_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(device=moved.device)

        return super()._apply(keep_float32, recurse)


class ResidualVQQuantizer(LibraryQuantizer):
    """ResidualVQ: one table a level that learns by moving averages; dead codes restart by EvoTok's relative rule."""

    library: ResidualVQ

    def __init__(self, settings: QuantizerSettings) -> None:
        super().__init__(settings, settings.latent_dim)

    def _build(self) -> ResidualVQ:
        settings = self.settings
        library = ResidualVQ(
            dim=settings.latent_dim,
            num_quantizers=settings.levels,
            codebook_size=settings.codebook_size,
            decay=settings.ema_decay,
            eps=settings.ema_eps,
            kmeans_init=settings.kmeans_init,
            threshold_ema_dead_code=int(settings.restart_unused_codes),  # whether at all; `learn` sets the number
        )
        for book in self._books(library):  # a boolean would not survive loading in another dtype
            book.register_buffer("initted", book.initted.float())
        return library

    @staticmethod
    def _books(library: ResidualVQ) -> list[Any]:
        """The library's codebooks, level by level."""
        return [layer._codebook for layer in library.layers]  # pyright: ignore[reportAttributeAccessIssue]

    def _on_default_device(self) -> ResidualVQ:
        return self._build()

    def tables(self) -> Tensor:
        """See LibraryQuantizer."""
        return self.library.codebooks.detach()  # pyright: ignore[reportAttributeAccessIssue]

    def codes_of(self, inner: Tensor) -> Tensor:
        """See LibraryQuantizer."""
        return assign(inner, self.tables())

    def learn(self, inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The codes are those of the tables before the step, as in EvoTok."""
        rows = inner.detach()[None]
        books = self._books(self.library)
        if not all(bool(book.initted) for book in books):
            self.library(rows, freeze_codebook=True)  # k-means, and nothing else
        tables = self.tables().clone()
        if self.gathering:
            return assign(rows[0], tables), tables, inner.new_zeros(())
        if self.settings.restart_unused_codes:
            average = rows.shape[1] / self.settings.codebook_size
            for book in books:
                book.threshold_ema_dead_code = self.settings.restart_threshold * average
                book.reset_cluster_size = average
        _, codes, _ = self.library(rows)
        return codes[0], tables, inner.new_zeros(())


class ResidualFSQQuantizer(LibraryQuantizer):
    """ResidualFSQ: nothing to learn; each level rounds what is left to a grid of `fsq_levels` steps a dimension."""

    library: ResidualFSQ

    def __init__(self, settings: QuantizerSettings) -> None:
        super().__init__(settings, len(settings.fsq_levels))

    def _build(self) -> ResidualFSQ:
        with torch.device("cpu"):  # it computes with its constants while it is made, which the meta device cannot
            return ResidualFSQ(levels=list(self.settings.fsq_levels), num_quantizers=self.settings.levels)

    def tables(self) -> Tensor:
        """See LibraryQuantizer."""
        return self.library.codebooks * self.library.scales[:, None]  # pyright: ignore[reportIndexIssue]

    def bounded(self, inner: Tensor) -> Tensor:
        """Inside the outermost grid points."""
        limit: Any = self.library.soft_clamp_input_value
        return (inner / limit).tanh() * limit

    @torch.no_grad()
    def codes_of(self, inner: Tensor) -> Tensor:
        """See LibraryQuantizer."""
        _, codes = self.library(inner[None])
        return codes[0].long()


class LFQQuantizer(LibraryQuantizer):
    """LFQ: one level, whose code is the signs of log2(K) numbers; its entropy loss keeps all codes in use.

    That loss is the batch's, not a mean over positions: over micro-batches it is averaged, not that of the whole.
    """

    library: LFQ

    def __init__(self, settings: QuantizerSettings) -> None:
        super().__init__(settings, settings.codebook_size.bit_length() - 1)

    def _build(self) -> LFQ:
        with torch.device("cpu"):
            library = LFQ(
                codebook_size=self.settings.codebook_size, entropy_loss_weight=self.settings.lfq_entropy_weight
            )
            mask: Any = library.mask
            library.register_buffer("mask", mask, persistent=False)  # powers of two: no state
        return library

    def tables(self) -> Tensor:
        """See LibraryQuantizer."""
        return self.library.codebook[None]  # pyright: ignore[reportIndexIssue]

    def codes_of(self, inner: Tensor) -> Tensor:
        """See LibraryQuantizer."""
        return ((inner > 0).long() * self.library.mask).sum(-1, keepdim=True)  # pyright: ignore[reportOperatorIssue]

    def learn(self, inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """With the entropy loss, whose gradient goes to `inner`."""
        _, codes, entropy_loss = self.library(inner[None])
        return codes[0, :, None].long(), self.tables(), entropy_loss


LIBRARY_QUANTIZERS: dict[str, type[Any]] = {
    "residual_vq": ResidualVQQuantizer,
    "residual_fsq": ResidualFSQQuantizer,
    "lfq": LFQQuantizer,
}

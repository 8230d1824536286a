"""One level's codebook and how it learns: by moving averages of the vectors that chose each code, never by gradients.

Source: spec sections 1.4 (the authors' update, kept as mode "faithful") and 7.2 rows 1 and 2 (why "corrected" exists).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmzoo.errors import InputError, suggestion
from mmzoo.ops.residual_vq import code_statistics
from tokenizers_visual.evotok.ranks import sum_over_ranks

MODES = ("corrected", "faithful")


@dataclass(frozen=True)
class QuantizerSettings:
    """Sizes of the residual quantiser and the rule by which its codebooks learn.

    `pixel_levels` and `semantic_levels` are how many levels each branch sums; there are max of the two codebooks.
    `restart_threshold` (corrected mode): a code is dead below this share of the average code's moving count. Higher
    follows a drifting latent faster and forgets rare vectors sooner. A code lags the latent by about
    1 / (1 - ema_decay) steps: for runs of a few hundred steps take 0.95. `frozen`: codebooks never learn.
    `level_dropout`: share of the images whose read-outs end at a random earlier level in training (level_dropout.py).
    `fsq_levels` and `lfq_entropy_weight` are only read by library_quantizers.py.
    """

    codebook_size: int
    latent_dim: int
    pixel_levels: int
    semantic_levels: int
    mode: str = "corrected"
    vq_warmup: int = 0
    restart_unused_codes: bool = True
    ema_decay: float = 0.99
    ema_eps: float = 1e-5
    kmeans_init: bool = False
    restart_threshold: float = 0.3
    frozen: bool = False
    level_dropout: float = 0.0
    fsq_levels: tuple[int, ...] = ()
    lfq_entropy_weight: float = 0.1

    def __post_init__(self) -> None:
        for name in ("codebook_size", "latent_dim", "pixel_levels", "semantic_levels"):
            if getattr(self, name) < 1:
                raise InputError(f"quantizer: {name} is {getattr(self, name)}; it must be at least 1")
        if self.mode not in MODES:
            raise InputError(f"quantizer: unknown mode {self.mode!r}.{suggestion(self.mode, MODES)}")
        if self.vq_warmup < 0:
            raise InputError(f"quantizer: vq_warmup is {self.vq_warmup}; it must be 0 or more steps")
        if not 0 < self.ema_decay < 1:
            raise InputError(f"quantizer: ema_decay is {self.ema_decay}; it must lie between 0 and 1")
        if not 0 <= self.restart_threshold < 1:
            raise InputError(f"quantizer: restart_threshold is {self.restart_threshold}; it must lie in [0, 1)")
        if not 0 <= self.level_dropout <= 1:
            raise InputError(f"quantizer: level_dropout is {self.level_dropout}; it is a share, 0 to 1")
        if self.kmeans_init and self.mode == "faithful":
            raise InputError("quantizer: kmeans_init is not part of the authors' recipe; use mode 'corrected' with it")

    @property
    def levels(self) -> int:
        """Number of codebooks."""
        return max(self.pixel_levels, self.semantic_levels)


class Codebook(nn.Module):
    """`table` (K + 1, D), whose last row is zero padding that no vector ever chooses; `counts` (K,), `sums` (K, D).

    The state stays float32 through `.to(bfloat16)`, `.half()` and `.double()`; only its device follows.
    """

    table: nn.Parameter
    counts: Tensor
    sums: Tensor
    step: Tensor | None

    def __init__(self, settings: QuantizerSettings) -> None:
        super().__init__()
        self.settings = settings
        size, dim = settings.codebook_size, settings.latent_dim
        self.table = nn.Parameter(torch.empty(size + 1, dim, dtype=torch.float32), requires_grad=False)
        self.register_buffer("counts", torch.empty(size, dtype=torch.float32))
        self.register_buffer("sums", torch.empty(size, dim, dtype=torch.float32))
        self.register_buffer("step", torch.empty((), dtype=torch.int64) if settings.vq_warmup > 0 else None)
        #: (K, 1 + D) counts and sums of the micro-batches since the last step; empty between updates, so never saved.
        self.gathered: Tensor | None = None
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Fresh state: codes drawn from N(0, 1), sums a copy of them, counts and step 0."""
        nn.init.normal_(self.table)
        self.table[-1].zero_()
        self.sums.copy_(self.vectors)
        self.counts.zero_()
        if self.step is not None:
            self.step.zero_()

    @property
    def vectors(self) -> Tensor:
        """The codes proper (K, D), without the padding row."""
        return self.table.detach()[: self.settings.codebook_size]

    @torch.no_grad()
    def start_from(self, vectors: Tensor) -> None:
        """Take `vectors` (K, D) as the codes."""
        self.vectors.copy_(vectors)
        self.sums.copy_(vectors)

    @torch.no_grad()
    def gather(self, codes: Tensor, residuals: Tensor) -> None:
        """Keeps what this rank's `codes` (N,) and the `residuals` (N, D) they stand for have to teach, for `learn`."""
        counts, sums = code_statistics(codes, residuals, self.settings.codebook_size)
        statistics = torch.cat([counts[:, None], sums], 1)
        self.gathered = statistics if self.gathered is None else self.gathered + statistics

    @torch.no_grad()
    def learn(self, replacements: Tensor | None) -> None:
        """One step from what was gathered, on all ranks.

        `replacements` (K, D): what code k becomes if it turns out dead, equal on all ranks; None = no restarts.
        """
        assert self.gathered is not None, "gather() comes first"
        packed, self.gathered = sum_over_ranks(self.gathered), None
        counts, sums = packed[:, 0], packed[:, 1:]
        if self.settings.mode == "faithful":
            self._learn_faithfully(counts, sums, replacements)
        else:
            self._learn_means(counts, sums, replacements)

    def _learn_means(self, counts: Tensor, sums: Tensor, replacements: Tensor | None) -> None:
        """Corrected mode: every code is the weighted mean of the vectors that chose it.

        The authors divide moving sums by max(1, moving counts). A code used less than once a step has a moving count
        below 1, so the clamp divides too much and the code shrinks towards zero, away from its own vectors; and while
        warm-up freezes the sums, all used codes shrink. Here sums and counts always move together and nothing is
        clamped: C' = (g N C + (1 - g) s) / (g N + (1 - g) n), with decay g, moving count N, batch count n, batch sum s.
        A code that was not hit stays; one hit for the first time (N = 0) becomes the mean of its vectors at once.

        Death is relative, N' < threshold * mean(N'), so it means the same for any batch size, codebook size and age of
        the run (the start-up bias 1 - g^t is common to both sides). A restarted code gets the average count: without
        a hit it lives log(threshold) / log(g) steps (120 for 0.3 and 0.99) before it is tried elsewhere.
        """
        decay = self.settings.ema_decay
        new_counts = decay * self.counts + (1 - decay) * counts
        pull = (1 - decay) * (sums - counts[:, None] * self.vectors)
        vectors = self.vectors + pull / new_counts[:, None].clamp(min=torch.finfo(torch.float32).tiny)
        if replacements is not None:
            average = new_counts.mean()
            dead = new_counts < self.settings.restart_threshold * average
            vectors = torch.where(dead[:, None], replacements, vectors)
            new_counts = torch.where(dead, average, new_counts)
        if self.step is not None:
            self.step.add_(1)
        self.counts.copy_(new_counts)
        self.vectors.copy_(vectors)
        self.sums.copy_(new_counts[:, None] * vectors)

    def _learn_faithfully(self, counts: Tensor, sums: Tensor, replacements: Tensor | None) -> None:
        """The authors' update, quirks included: no warm-up, no learning; warm-up freezes sums while counts grow."""
        decay, eps, size = self.settings.ema_decay, self.settings.ema_eps, self.settings.codebook_size
        self.counts.mul_(decay).add_(counts, alpha=1 - decay)
        if self.step is not None:
            moved = decay * self.sums + (1 - decay) * sums
            self.sums.copy_(torch.where(self.step >= self.settings.vq_warmup, moved, self.sums))
            self.step.add_(1)
        if replacements is not None:
            dead = self.counts < 1
            self.sums.copy_(torch.where(dead[:, None], replacements, self.sums))
            self.counts.masked_fill_(dead, 1.0)
        total = self.counts.sum()
        smoothed = total * (self.counts + eps) / (total + size * eps)
        self.vectors.copy_(self.sums / smoothed.clamp(min=1)[:, None])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Codebook:
        def keep_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(device=moved.device)

        return super()._apply(keep_float32, recurse)

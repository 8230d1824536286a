"""The sums behind the three descriptors: small, and exact to pool, so a scene can be read tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class DescriptorStatistics:
    """Of B images. `histogram` (B, K), the rest (B,), all float32; `squares` are sums of squared deviations."""

    histogram: Tensor
    count: Tensor
    mean: Tensor
    squares: Tensor
    blocks: Tensor
    block_mean: Tensor
    block_squares: Tensor

    def pooled(self) -> DescriptorStatistics:
        """Of all B images as one, (1, ...): tiles of a scene. Tiles of whole blocks lose only gradients at seams."""
        count, mean, squares = _pool(self.count, self.mean, self.squares)
        blocks, block_mean, block_squares = _pool(self.blocks, self.block_mean, self.block_squares)
        histogram = self.histogram.sum(0, keepdim=True)
        return DescriptorStatistics(histogram, count, mean, squares, blocks, block_mean, block_squares)

    @staticmethod
    def concatenated(parts: Sequence[DescriptorStatistics]) -> DescriptorStatistics:
        """The images of all `parts`, one after the other."""
        names = [field.name for field in fields(DescriptorStatistics)]
        return DescriptorStatistics(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def entropy(self) -> Tensor:
        """(B,) nats; 0 where no gradient had a direction."""
        share = self.histogram / self.histogram.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        return torch.special.entr(share).sum(1)

    def looks(self, most: float) -> Tensor:
        """(B,) mean^2 / variance, at most `most`, which an image without variance has; 1 without two valid pixels."""
        variance = self.squares / self.count.clamp(min=1)
        ratio = self.mean.square() / variance.clamp(min=torch.finfo(torch.float32).tiny)
        looks = torch.where(variance > 0, ratio.clamp(max=most), most)
        return torch.where(self.count >= 2, looks, 1.0)

    def roughness(self) -> Tensor:
        """(B,) population variance of the block means; 0 with fewer than two blocks."""
        return self.block_squares / self.blocks.clamp(min=1)


def _pool(count: Tensor, mean: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Chan, Golub and LeVeque: parts keep their own means, so nothing cancels."""
    total = count.sum(0, keepdim=True)
    pooled = (count * mean).sum(0, keepdim=True) / total.clamp(min=1)
    between = (count * (mean - pooled).square()).sum(0, keepdim=True)
    return total, pooled, squares.sum(0, keepdim=True) + between

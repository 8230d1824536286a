"""The semantic decoder: a small BEiT-style transformer from latents to teacher features (spec 1.6)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizers_visual.evotok.configuration import EvoTokConfig


class Attention(nn.Module):
    """Multi-head attention whose head width is floor(width / heads): the inner width may be smaller than the width.

    Width 1024 with 12 heads gives heads of 85 and an inner width of 1020 (spec 1.6). The key has no bias.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        inner = self.head_width * heads
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.query_bias = nn.Parameter(torch.zeros(inner))
        self.value_bias = nn.Parameter(torch.zeros(inner))
        self.projection = nn.Linear(inner, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        batch, count, _ = tokens.shape
        bias = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        qkv = F.linear(tokens, self.qkv.weight, bias).view(batch, count, 3, self.heads, self.head_width)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, head_width)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.projection(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: EvoTokConfig) -> None:
        super().__init__()
        width, eps = config.semantic_width, config.semantic_layernorm_eps
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, config.semantic_heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, width * config.semantic_mlp_ratio)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class SemanticDecoder(nn.Module):
    """Latents (B, latent_dim, h, w) -> tokens (B, h*w, semantic_width); the cls token is used and dropped."""

    def __init__(self, config: EvoTokConfig) -> None:
        super().__init__()
        width = config.semantic_width
        self.grid = (config.grid_size, config.grid_size)
        self.patch_embed = nn.Conv2d(config.latent_dim, width, 1)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embedding = nn.Parameter(torch.zeros(1, config.grid_size**2 + 1, width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.semantic_blocks))
        self.norm = nn.LayerNorm(width, eps=config.semantic_layernorm_eps)

    @property
    def typed_blocks(self) -> list[Block]:
        """The transformer blocks, first to last."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position table (1, h*w + 1, C) for any grid; interpolated bicubically in fp32 off the native one."""
        if grid == self.grid:
            return self.position_embedding
        table = self.position_embedding[:, 1:].float().reshape(1, *self.grid, -1).permute(0, 3, 1, 2)
        table = F.interpolate(table, size=grid, mode="bicubic", align_corners=False)
        table = table.flatten(2).transpose(1, 2).to(self.position_embedding.dtype)
        return torch.cat([self.position_embedding[:, :1], table], dim=1)

    def forward(self, latent: Tensor) -> Tensor:
        """latent (B, D, h, w) -> tokens (B, h*w, C), row by row."""
        patches = self.patch_embed(latent).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(latent.shape[0], -1, -1), patches], dim=1)
        tokens = tokens + self.positions((latent.shape[-2], latent.shape[-1]))
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 1:])

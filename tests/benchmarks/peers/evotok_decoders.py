"""EvoTok's two decoders as published, attention as matrix products and a softmax.

Written from the description in spec evotok.md sections 1.5 and 1.6. Names of tensors are the published ones, so that
recorded states load. Not edited to suit a figure: a change here needs a note.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizers_visual.evotok.configuration import EvoTokConfig


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention, (..., N, d) each, with scale 1 / sqrt(d)."""
    weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
    return weights @ value


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def normed(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResBlock(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = normed(before), nn.Conv2d(before, after, 3, 1, 1)
        self.norm2, self.conv2 = normed(after), nn.Conv2d(after, after, 3, 1, 1)
        if before != after:
            self.nin_shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(swish(self.norm2(self.conv1(swish(self.norm1(x))))))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + h


class AttnBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = normed(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))
        self.attend = attend

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (conv(h).flatten(2).transpose(1, 2) for conv in (self.q, self.k, self.v))
        return x + self.proj_out(self.attend(q, k, v).transpose(1, 2).reshape(x.shape))


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class PlainPixelDecoder(nn.Module):
    """z channels (B, z, h, w) -> image (B, 3, u*h, u*w)."""

    def __init__(self, config: EvoTokConfig) -> None:
        super().__init__()
        base, z = config.pixel_decoder_base_channels, config.pixel_decoder_z_channels
        widths = [base * factor for factor in config.pixel_decoder_channel_multipliers][::-1]
        self.conv_in = nn.Conv2d(z, widths[0], 3, 1, 1)
        self.mid = nn.ModuleList([ResBlock(widths[0], widths[0]), AttnBlock(widths[0]), ResBlock(widths[0], widths[0])])
        self.conv_blocks = nn.ModuleList()
        before = widths[0]
        for number, width in enumerate(widths):
            block = nn.Module()
            block.res, block.attn = nn.ModuleList(), nn.ModuleList()
            for _ in range(config.pixel_decoder_res_blocks + 1):
                block.res.append(ResBlock(before, width))
                before = width
                if number == 0:
                    block.attn.append(AttnBlock(width))
            if number < len(widths) - 1:
                block.upsample = Upsample(width)
            self.conv_blocks.append(block)
        self.norm_out, self.conv_out = normed(widths[-1]), nn.Conv2d(widths[-1], 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for layer in self.mid:
            x = layer(x)
        for block in self.conv_blocks:
            for number, res in enumerate(block.res):
                x = res(x)
                if len(block.attn):
                    x = block.attn[number](x)
            if hasattr(block, "upsample"):
                x = block.upsample(x)
        return self.conv_out(swish(self.norm_out(x)))


class BeitAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, inner = heads, width // heads * heads
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(inner)), nn.Parameter(torch.zeros(inner))
        self.proj = nn.Linear(inner, width)
        self.attend = attend

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(self.attend(*qkv).transpose(1, 2).flatten(2))


class BeitBlock(nn.Module):
    def __init__(self, config: EvoTokConfig) -> None:
        super().__init__()
        width, eps = config.semantic_width, config.semantic_layernorm_eps
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.attn = BeitAttention(width, config.semantic_heads)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(width, width * config.semantic_mlp_ratio)
        self.mlp.fc2 = nn.Linear(width * config.semantic_mlp_ratio, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class PlainSemanticDecoder(nn.Module):
    """Latents (B, D, h, w) -> tokens (B, h*w, width)."""

    def __init__(self, config: EvoTokConfig) -> None:
        super().__init__()
        width = config.semantic_width
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(config.latent_dim, width, 1)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid_size**2 + 1, width))
        self.blocks = nn.ModuleList(BeitBlock(config) for _ in range(config.semantic_blocks))
        self.fc_norm = nn.LayerNorm(width, config.semantic_layernorm_eps)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.patch_embed.proj(latent).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.fc_norm(x[:, 1:])

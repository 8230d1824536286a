"""The pixel decoder: a VQGAN-style convolutional network from latents to an image (spec 1.5)."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from tokenizers_visual.evotok.configuration import GROUPNORM_GROUPS, EvoTokConfig

GROUPNORM_EPS = 1e-6


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups and the epsilon of the authors' weights."""
    return nn.GroupNorm(GROUPNORM_GROUPS, channels, eps=GROUPNORM_EPS)


class ResidualBlock(nn.Module):
    """(norm, swish, 3x3 conv) twice, plus a shortcut; a 1x1 convolution where the width changes."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = group_norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        if channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, h, w)."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return (self.shortcut(x) if hasattr(self, "shortcut") else x) + hidden


class SpatialAttention(nn.Module):
    """Single-head attention over the h * w positions, residual; scale 1 / sqrt(C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.projection = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> same shape."""
        normed = self.norm(x)
        query, key, value = (
            conv(normed).flatten(2).transpose(1, 2).unsqueeze(1) for conv in (self.query, self.key, self.value)
        )  # (B, 1, h*w, C)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.projection(mixed.squeeze(1).transpose(1, 2).reshape(x.shape))


class Upsample(nn.Module):
    """Nearest-neighbour doubling followed by a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, 2h, 2w)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Stage(nn.Module):
    """Residual blocks of one resolution (with attention at the coarsest), then a doubling except at the finest."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int, *, attention: bool, upsample: bool) -> None:
        super().__init__()
        widths = [channels_in] + [channels_out] * blocks
        self.residual = nn.ModuleList(ResidualBlock(a, b) for a, b in pairwise(widths))
        self.attention = nn.ModuleList(SpatialAttention(channels_out) for _ in range(blocks if attention else 0))
        if upsample:
            self.upsample = Upsample(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, 2h, 2w), or (h, w) at the finest stage."""
        for index, block in enumerate(self.residual):
            x = block(x)
            if len(self.attention):
                x = self.attention[index](x)
        return self.upsample(x) if hasattr(self, "upsample") else x


class PixelDecoder(nn.Module):
    """Latents (B, latent_dim, h, w) -> image (B, 3, u*h, u*w), unclamped; u = 2 ** (stages - 1)."""

    def __init__(self, config: EvoTokConfig) -> None:
        super().__init__()
        base, blocks = config.pixel_decoder_base_channels, config.pixel_decoder_res_blocks + 1
        widths = [base * factor for factor in reversed(config.pixel_decoder_channel_multipliers)]  # coarse -> fine
        self.post_quant = nn.Conv2d(config.latent_dim, config.pixel_decoder_z_channels, 1)
        self.conv_in = nn.Conv2d(config.pixel_decoder_z_channels, widths[0], 3, padding=1)
        self.middle = nn.ModuleList(
            [ResidualBlock(widths[0], widths[0]), SpatialAttention(widths[0]), ResidualBlock(widths[0], widths[0])]
        )
        last = len(widths) - 1
        self.stages = nn.ModuleList(
            Stage(widths[max(i - 1, 0)], widths[i], blocks, attention=i == 0, upsample=i != last)
            for i in range(len(widths))
        )
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """latent (B, D, h, w) -> image (B, 3, u*h, u*w)."""
        x = self.conv_in(self.post_quant(latent))
        for block in self.middle:
            x = block(x)
        for stage in self.stages:
            x = stage(x)
        return self.conv_out(F.silu(self.norm_out(x)))

    @property
    def last_weight(self) -> Tensor:
        """The weight that an adaptive GAN weighting measures gradients at."""
        return cast(Tensor, self.conv_out.weight)

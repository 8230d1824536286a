"""The DINOv2 vision transformer around the experts: embeddings, attention, blocks (spec section 1.2).

Our own few lines rather than transformers' Dinov2 modules, whose parameter names change between versions, while the
names in a saved model must not. `tests/parity` holds them against `Dinov2Model`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.router import ExpertLayer
from mmzoo.ops.expert_routing import RoutingSums

BANDS = 3


def resized_grid(positions: Tensor, height: int, width: int) -> Tensor:
    """A square position grid (1, side * side, C) on height x width places: bicubic, in float32, corners not aligned."""
    side = round(positions.shape[1] ** 0.5)
    if (height, width) == (side, side):
        return positions
    grid = positions.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).reshape(1, height * width, -1).to(positions.dtype)


class Embeddings(nn.Module):
    """Patches, a CLS token before them, and positions."""

    def __init__(self, config: CrossEarthSARConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.patch = nn.Conv2d(BANDS, width, config.patch_size, stride=config.patch_size)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        #: Never used here; DINOv2's own pre-training put it in the place of hidden patches, and its layout has it.
        self.mask_token = nn.Parameter(torch.empty(1, width), requires_grad=False)
        self.positions = nn.Parameter(torch.empty(1, 1 + config.grid_size**2, width))

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """images (B, 3, H, W) -> tokens (B, 1 + h * w, C), grid (h, w)."""
        patches = self.patch(images.to(self.patch.weight.dtype))
        height, width = patches.shape[-2:]
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        positions = torch.cat([self.positions[:, :1], resized_grid(self.positions[:, 1:], height, width)], 1)
        return tokens + positions, (height, width)


class Attention(nn.Module):
    """Softmax attention of all tokens on all, with biases everywhere."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.projection = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, N, C) -> (B, N, C)."""
        query, key, value = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.projection(mixed.transpose(1, 2).flatten(2))


class Block(GradientCheckpointingLayer):
    """x + s1 * attention(norm1(x)), then x + s2 * experts(norm2(x), descriptors)."""

    def __init__(self, config: CrossEarthSARConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attention = Attention(width, config.num_attention_heads)
        self.scale1 = nn.Parameter(torch.empty(width))
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.experts = ExpertLayer(
            width,
            config.expert_width,
            config.num_experts,
            config.experts_per_token,
            config.gate,  # pyright: ignore[reportArgumentType] - checked by the configuration
            config.expert_method,  # pyright: ignore[reportArgumentType]
        )
        self.scale2 = nn.Parameter(torch.empty(width))

    def forward(self, tokens: Tensor, descriptors: Tensor) -> tuple[Tensor, Tensor, RoutingSums]:
        """tokens (B, N, C), descriptors (B, 3) -> tokens, chosen experts (B, N, k), the router's sums."""
        tokens = tokens + self.attention(self.norm1(tokens)) * self.scale1
        answers, choice, sums = self.experts(self.norm2(tokens), descriptors)
        return tokens + answers * self.scale2, choice, sums

"""The shared encoder: a SigLIP vision transformer, read at an inner layer and not run beyond it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.siglip.modeling_siglip import (
    SiglipEncoderLayer,
    SiglipMultiheadAttentionPoolingHead,
    SiglipVisionEmbeddings,
)

from tokenizers_visual.evotok.configuration import EvoTokConfig


class InputScaling(nn.Module):
    """Maps images in [-1, 1] to what SigLIP expects. The identity, except that outliers are clamped (spec 1.2)."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("scale", torch.full((1, 3, 1, 1), 0.5))

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W), nominally in [-1, 1] -> same shape, clamped."""
        levels = (images + 1.0) * 127.5
        # Not clamp(): in torch 2.15 its gradient is zero at the bounds themselves; the recorded run let it through.
        levels = torch.where(levels < 0.0, 0.0, torch.where(levels > 255.0, 255.0, levels))
        return (levels / 255.0 - self.shift) / self.scale


class VisionEncoder(nn.Module):
    """SigLIP's embeddings and layers, assembled from transformers' parts so that the saved names are ours.

    The layers after the tap, the last LayerNorm and the pooling head (29 tensors for the published tap) belong to the
    authors' checkpoint but have no part in the output: they are kept frozen unless `slim`, and never run.
    """

    def __init__(self, config: EvoTokConfig) -> None:
        super().__init__()
        siglip = config.encoder_config()
        self.grid = (config.grid_size, config.grid_size)
        self.patch_size = config.patch_size
        self.depth_run = config.encoder_depth_run
        self.embeddings = SiglipVisionEmbeddings(siglip)
        depth = self.depth_run if config.slim else config.encoder_layers
        self.layers = nn.ModuleList(SiglipEncoderLayer(siglip) for _ in range(depth))
        if not config.slim:
            self.post_layernorm = nn.LayerNorm(config.encoder_width, eps=config.encoder_layernorm_eps)
            self.head = SiglipMultiheadAttentionPoolingHead(siglip)
            for module in (*self.layers[self.depth_run :], self.post_layernorm, self.head):
                module.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) -> features (B, h * w, encoder_width), row by row. B may be 0: a rank without samples."""
        if len(images) == 0:
            # transformers' attention cannot take it; this way the weights still get their gradients, of zero.
            return self(images.new_zeros(1, *images.shape[1:]))[:0]
        grid = (images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size)
        hidden = self.embeddings(images, interpolate_pos_encoding=grid != self.grid)
        for layer in self.layers[: self.depth_run]:
            hidden = layer(hidden, attention_mask=None)
        return hidden

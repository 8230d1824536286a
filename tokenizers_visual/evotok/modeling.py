"""EvoTok as a transformers model: one encoder, one residual quantizer, two decoders (spec section 1)."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.models.siglip.modeling_siglip import (
    SiglipAttention,
    SiglipMLP,
    SiglipMultiheadAttentionPoolingHead,
    SiglipVisionEmbeddings,
)
from transformers.utils.generic import ModelOutput

from mmzoo.errors import InputError
from mmzoo.hub.model import ZooModel
from tokenizers_visual.evotok.codebook import Codebook, QuantizerSettings
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.flops import forward_flops
from tokenizers_visual.evotok.pixel_decoder import PixelDecoder
from tokenizers_visual.evotok.quantizer import QuantizerOutput, ResidualQuantizer
from tokenizers_visual.evotok.semantic_decoder import SemanticDecoder
from tokenizers_visual.evotok.vision_encoder import InputScaling, VisionEncoder

if TYPE_CHECKING:
    from mmzoo.hub.source import ModelSource
    from tokenizers_visual.evotok.library_quantizers import LibraryQuantizer


@dataclass
class EvoTokOutput(ModelOutput):
    """latent (B, D, h, w); codes (B, h, w, L) int64; reconstruction (B, 3, H, W), unclamped, nominally [-1, 1];
    semantics (B, h*w, C); commitment_loss = commitment_sum / commitment_count.

    transformers demands None defaults; the model always fills every field.
    """

    latent: Tensor = None  # pyright: ignore[reportAssignmentType]
    codes: Tensor = None  # pyright: ignore[reportAssignmentType]
    reconstruction: Tensor = None  # pyright: ignore[reportAssignmentType]
    semantics: Tensor = None  # pyright: ignore[reportAssignmentType]
    commitment_loss: Tensor = None  # pyright: ignore[reportAssignmentType]
    commitment_sum: Tensor = None  # pyright: ignore[reportAssignmentType]
    commitment_count: int = None  # pyright: ignore[reportAssignmentType]


def quantizer_settings(config: EvoTokConfig) -> QuantizerSettings:
    """The quantizer's part of the configuration."""
    return QuantizerSettings(
        codebook_size=config.codebook_size,
        latent_dim=config.latent_dim,
        pixel_levels=config.pixel_levels,
        semantic_levels=config.semantic_levels,
        mode=config.quantizer_mode,  # type: ignore[arg-type]  # checked by the configuration
        vq_warmup=config.vq_warmup,
        restart_unused_codes=config.restart_unused_codes,
        ema_decay=config.ema_decay,
        ema_eps=config.ema_eps,
        kmeans_init=config.kmeans_init,
        frozen=config.freeze_codebooks,
        level_dropout=config.level_dropout,
        fsq_levels=tuple(config.fsq_levels),
        lfq_entropy_weight=config.lfq_entropy_weight,
    )


def make_quantizer(config: EvoTokConfig) -> ResidualQuantizer | LibraryQuantizer:
    """The quantiser that the configuration names."""
    if config.quantizer == "evotok":
        return ResidualQuantizer(quantizer_settings(config))
    from tokenizers_visual.evotok.library_quantizers import LIBRARY_QUANTIZERS  # the library takes its time to import

    return LIBRARY_QUANTIZERS[config.quantizer](quantizer_settings(config))


def tanh_head(width_in: int, hidden: int, width_out: int) -> nn.Sequential:
    """Linear, tanh, Linear: the two task heads around the quantizer."""
    return nn.Sequential(nn.Linear(width_in, hidden), nn.Tanh(), nn.Linear(hidden, width_out))


class EvoTokModel(ZooModel):
    """The tokenizer. `encode` gives codes, any prefix of their levels decodes; see `forward` for training."""

    config_class = EvoTokConfig
    config: EvoTokConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _no_split_modules = ["SiglipEncoderLayer", "ResidualBlock", "Block"]  # noqa: RUF012  # transformers' own form
    #: Codes must not depend on the dtype that a user loads the model in.
    _keep_in_fp32_modules_strict = {"quantizer"}  # noqa: RUF012

    def __init__(self, config: EvoTokConfig) -> None:
        super().__init__(config)
        self.scaling = InputScaling()
        self.encoder = VisionEncoder(config)
        self.encode_head = tanh_head(config.encoder_width, config.encoder_width, config.latent_dim)
        self.quantizer = make_quantizer(config)
        self.pixel_decoder = PixelDecoder(config)
        self.semantic_decoder = SemanticDecoder(config)
        self.decode_head = tanh_head(config.semantic_width, config.semantic_out_width, config.semantic_out_width)
        self._warned_levels: set[tuple[str, int]] = set()
        self.post_init()

    @classmethod
    def _load(cls, source: ModelSource, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any]:
        model, report = super()._load(source, arguments, options)
        if not isinstance(model.quantizer, ResidualQuantizer):
            model.quantizer.reset_constants()
        return model, report

    def encode_latent(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [-1, 1] -> latent (B, D, H // patch, W // patch) before quantisation."""
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < self.config.patch_size:
            raise InputError(
                f"EvoTok takes images (B, 3, H, W) of at least {self.config.patch_size} px a side; "
                f"got {tuple(images.shape)}. Run them through the image processor."
            )
        grid = (images.shape[-2] // self.config.patch_size, images.shape[-1] // self.config.patch_size)
        features = self.encode_head(self.encoder(self.scaling(images)))
        return features.transpose(1, 2).reshape(len(images), self.config.latent_dim, *grid)

    @torch.no_grad()
    def encode(self, images: Tensor, *, fast: bool = False) -> tuple[Tensor, Tensor]:
        """images (B, 3, H, W) in [-1, 1] -> codes (B, h, w, L) int64, latent (B, D, h, w).

        Runs outside autocast, so that codes do not depend on the caller's; `fast=True` keeps the caller's autocast, and
        its codes then agree with the exact ones less and less with the level.
        """
        if fast:
            latent = self.encode_latent(images)
        else:
            with torch.autocast(images.device.type, enabled=False):
                latent = self.encode_latent(images.to(self.dtype))
        return self.quantizer.encode(latent), latent

    def decode_pixels(self, codes: Tensor, *, output_size: tuple[int, int] | None = None) -> Tensor:
        """codes (B, h, w, n) -> images (B, 3, H, W), unclamped, from exactly the first n levels.

        The size is `output_size`, else the configured one, else the decoder's own: 2 ** (stages - 1) px a token.
        """
        self._note_levels("pixel", codes.shape[-1], self.config.pixel_levels)
        return self._to_pixels(self.quantizer.decode(codes), output_size)

    def decode_semantics(self, codes: Tensor) -> Tensor:
        """codes (B, h, w, n) -> features (B, h*w, C) like the teacher's, from exactly the first n levels."""
        self._note_levels("semantic", codes.shape[-1], self.config.semantic_levels)
        return self._to_semantics(self.quantizer.decode(codes))

    def forward(self, pixel_values: Tensor) -> EvoTokOutput:
        """pixel_values (B, 3, H, W) in [-1, 1] -> everything that the losses need (see EvoTokOutput).

        In training mode each call also teaches the codebooks one step.
        """
        latent = self.encode_latent(pixel_values)
        quantized: QuantizerOutput = self.quantizer(latent)
        height, width = int(pixel_values.shape[-2]), int(pixel_values.shape[-1])
        return EvoTokOutput(
            latent=latent,
            codes=quantized.codes,
            reconstruction=self._to_pixels(quantized.pixel_latent, self._configured_size() or (height, width)),
            semantics=self._to_semantics(quantized.semantic_latent),
            commitment_loss=quantized.commitment_loss,
            commitment_sum=quantized.commitment_sum,
            commitment_count=quantized.commitment_count,
        )

    def active_parameters(self) -> int:
        """Parameter elements that a forward pass touches: all but the layers kept only for official export."""
        idle = [*self.encoder.layers[self.encoder.depth_run :]]
        if not self.config.slim:
            idle += [self.encoder.post_layernorm, self.encoder.head]
        unused = sum(p.numel() for module in idle for p in module.parameters())
        return sum(p.numel() for p in self.parameters()) - unused

    def flops(self, tokens: int | None = None) -> int:
        """Operations (2 a multiply-add) of `forward` on one image of `tokens` grid positions, h * w.

        None = an image of `config.image_size`. The image is tokens * patch_size ** 2 pixels large, whatever its shape.
        By kind of work: tokenizers_visual.evotok.flops.
        """
        return sum(forward_flops(self, self.config.grid_size**2 if tokens is None else tokens).values())

    def _configured_size(self) -> tuple[int, int] | None:
        size = self.config.output_size
        return None if size is None else (size, size)

    def _to_pixels(self, latent: Tensor, output_size: tuple[int, int] | None) -> Tensor:
        image = self.pixel_decoder(latent.to(self.pixel_decoder.conv_out.weight.dtype))
        size = output_size or self._configured_size()
        if size is None or tuple(image.shape[-2:]) == size:
            return image
        return F.interpolate(image, size=size, mode="bicubic", align_corners=False)

    def _to_semantics(self, latent: Tensor) -> Tensor:
        return self.decode_head(self.semantic_decoder(latent.to(self.semantic_decoder.patch_embed.weight.dtype)))

    def _note_levels(self, read_out: str, given: int, trained: int) -> None:
        if given != trained and (read_out, given) not in self._warned_levels:
            self._warned_levels.add((read_out, given))
            warnings.warn(f"the {read_out} decoder was trained on {trained} levels and is given {given}", stacklevel=3)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Starting values; transformers calls it on children before parents, and only for what no file provides."""
        if isinstance(module, nn.Linear | nn.Conv2d):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.LayerNorm | nn.GroupNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, InputScaling):
            init.constant_(module.shift, 0.5)
            init.constant_(module.scale, 0.5)
        elif isinstance(module, SemanticDecoder):
            self._init_semantic_decoder(module)
        elif isinstance(module, Codebook):
            if not getattr(module.table, "_is_hf_initialized", False):
                module.reset()
        else:
            self._init_siglip_part(module)

    @staticmethod
    def _init_siglip_part(module: nn.Module) -> None:
        """SigLIP's own starting values; the position ids are no saved state and are always written."""
        if isinstance(module, SiglipVisionEmbeddings):
            init.normal_(module.position_embedding.weight, std=module.embed_dim**-0.5)
            init.copy_(module.position_ids, torch.arange(module.num_positions).expand((1, -1)))
        elif isinstance(module, SiglipAttention):
            for linear in (module.q_proj, module.k_proj, module.v_proj, module.out_proj):
                init.xavier_uniform_(linear.weight)
                init.zeros_(linear.bias)
        elif isinstance(module, SiglipMLP):
            for linear in (module.fc1, module.fc2):
                init.xavier_uniform_(linear.weight)
                init.normal_(linear.bias, std=1e-6)
        elif isinstance(module, SiglipMultiheadAttentionPoolingHead):
            init.xavier_uniform_(module.probe)
            init.xavier_uniform_(module.attention.in_proj_weight)
            init.zeros_(module.attention.in_proj_bias)

    def _init_semantic_decoder(self, decoder: SemanticDecoder) -> None:
        """Truncated normal 0.02; the two matrices that end a residual branch shrink with depth (spec 1.6)."""
        for tensor in (decoder.cls_token, decoder.position_embedding, decoder.patch_embed.weight):
            init.trunc_normal_(tensor, std=0.02)
        if decoder.patch_embed.bias is not None:
            init.zeros_(decoder.patch_embed.bias)
        for depth, block in enumerate(decoder.typed_blocks, start=1):
            shrunk = 0.02 / math.sqrt(2 * depth)
            init.trunc_normal_(block.attention.qkv.weight, std=0.02)
            init.trunc_normal_(block.mlp.fc1.weight, std=0.02)
            init.trunc_normal_(block.attention.projection.weight, std=shrunk)
            init.trunc_normal_(block.mlp.fc2.weight, std=shrunk)
            for bias in (block.attention.projection.bias, block.mlp.fc1.bias, block.mlp.fc2.bias):
                init.zeros_(bias)
            init.zeros_(block.attention.query_bias)
            init.zeros_(block.attention.value_bias)

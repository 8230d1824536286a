"""EvoTok's configuration: flat, so that a YAML line names what it changes."""

from __future__ import annotations

import math
from typing import Any

from transformers import PretrainedConfig, SiglipVisionConfig

from mmzoo.errors import InputError, suggestion

GROUPNORM_GROUPS = 32
QUANTIZERS = ("evotok", "residual_vq", "residual_fsq", "lfq")
#: The lowest value of the whole numbers for which it is not 1; None = any.
LOWEST = {"encoder_feature_index": None, "vq_warmup": 0, "pixel_decoder_res_blocks": 0, "semantic_blocks": 0}


class EvoTokConfig(PretrainedConfig):
    """Sizes of the tokenizer (spec section 1). Defaults are the published `siglip2-256` model.

    Images are (B, 3, H, W) in [-1, 1]; the token grid is (H // patch_size, W // patch_size).
    """

    model_type = "evotok"

    image_size: int = 256  #: px, the size that the position tables are made for; other sizes interpolate them
    patch_size: int = 16  #: px
    output_size: int | None = None  #: px, bicubic target of the decoded image; None = the size of the input
    # Shared encoder (SigLIP vision transformer)
    encoder_width: int = 1024
    encoder_layers: int = 24
    encoder_heads: int = 16
    encoder_mlp_width: int = 4096
    encoder_activation: str = "gelu_pytorch_tanh"
    encoder_layernorm_eps: float = 1e-6
    encoder_feature_index: int = -2  #: index into [embeddings, layer 1, ..., layer n]; -2 = penultimate layer
    slim: bool = False  #: leave out the layers after the tap; they never run, but official export needs them
    # Quantizer
    quantizer: str = "evotok"  #: or of vector-quantize-pytorch: "residual_vq", "residual_fsq", "lfq" (one level)
    fsq_levels: list[int] | tuple[int, ...] = ()  #: residual_fsq: steps a dimension; their product is codebook_size
    lfq_entropy_weight: float = 0.1  #: lfq: of its entropy loss, which is added to the commitment
    freeze_codebooks: bool = False  #: tables stay as they are in training
    level_dropout: float = 0.0  #: share of images that training decodes from a random prefix of levels
    latent_dim: int = 32
    codebook_size: int = 32768
    pixel_levels: int = 4  #: partial sum that is decoded to pixels
    semantic_levels: int = 16  #: partial sum that is decoded to semantics
    quantizer_mode: str = "corrected"  #: "faithful" learns its tables exactly as the authors' code does
    vq_warmup: int = 0  #: steps; only read in faithful mode (0 = sums never learn, the authors' default)
    restart_unused_codes: bool = True
    ema_decay: float = 0.99
    ema_eps: float = 1e-5
    kmeans_init: bool = False  #: start each table from k-means of the first batch (corrected mode)
    # Pixel decoder (VQGAN), multipliers from the finest to the coarsest stage
    pixel_decoder_base_channels: int = 128
    pixel_decoder_channel_multipliers: list[int] | tuple[int, ...] = (1, 1, 2, 2, 4)
    pixel_decoder_res_blocks: int = 2  #: per stage; the decoder has one more
    pixel_decoder_z_channels: int = 256
    # Semantic decoder (BEiT-style transformer)
    semantic_width: int = 1024
    semantic_blocks: int = 3
    semantic_heads: int = 12  #: head width is floor(width / heads), so the inner width may shrink
    semantic_mlp_ratio: int = 4
    semantic_layernorm_eps: float = 1e-6
    semantic_out_width: int = 1024  #: width of the teacher's features

    def __post_init__(self, **kwargs: Any) -> None:
        self._check_values()
        self.pixel_decoder_channel_multipliers = list(self.pixel_decoder_channel_multipliers)
        self.fsq_levels = list(self.fsq_levels)
        super().__post_init__(**kwargs)
        self._check_sizes()

    def _check_values(self) -> None:
        """Each setting alone: transformers takes any value, and the fault would show deep inside torch."""
        for name, annotation in type(self).__annotations__.items():
            wanted = _wanted(name, str(annotation), getattr(self, name, None))
            if wanted is not None:
                raise InputError(f"{name} is {getattr(self, name)!r}. Give {wanted}.")

    def _check_quantizer(self) -> None:
        if self.quantizer not in QUANTIZERS:
            raise InputError(f"quantizer is {self.quantizer!r}.{suggestion(self.quantizer, QUANTIZERS)}")
        if self.quantizer != "evotok" and self.quantizer_mode != "corrected":
            raise InputError(f"quantizer_mode {self.quantizer_mode!r} belongs to quantizer 'evotok'. Leave it out.")
        if self.quantizer not in ("evotok", "residual_vq") and self.kmeans_init:
            raise InputError(f"kmeans_init: quantizer {self.quantizer!r} has no tables to start. Set it to false.")
        if self.quantizer == "residual_fsq" and self.codebook_size != (product := math.prod(self.fsq_levels)):
            raise InputError(
                f"quantizer 'residual_fsq': codebook_size is {self.codebook_size}, the product of fsq_levels "
                f"{list(self.fsq_levels)} is {product}. Make them equal."
            )
        if self.quantizer == "lfq" and self.levels != 1:
            raise InputError(
                f"quantizer 'lfq' has one level; pixel_levels is {self.pixel_levels}, semantic_levels "
                f"{self.semantic_levels}. Set both to 1."
            )
        if self.quantizer == "lfq" and (self.codebook_size < 2 or self.codebook_size & (self.codebook_size - 1)):
            raise InputError(f"quantizer 'lfq': codebook_size is {self.codebook_size}. Give a power of two from 2 up.")
        if self.level_dropout > 1:
            raise InputError(f"level_dropout is {self.level_dropout}. Give a share, 0 to 1.")

    def _check_sizes(self) -> None:
        self._check_quantizer()
        if self.quantizer_mode not in ("corrected", "faithful"):
            raise InputError(f"quantizer_mode is {self.quantizer_mode!r}. Use 'corrected' or 'faithful'.")
        if self.encoder_width % self.encoder_heads:
            raise InputError(
                f"encoder_width {self.encoder_width} is not a multiple of encoder_heads {self.encoder_heads}."
            )
        channels = [self.pixel_decoder_base_channels * m for m in self.pixel_decoder_channel_multipliers]
        if any(count % GROUPNORM_GROUPS for count in channels):
            raise InputError(
                f"pixel decoder widths {channels} must be multiples of {GROUPNORM_GROUPS} (GroupNorm groups)."
            )
        if min(self.pixel_levels, self.semantic_levels) < 1:
            raise InputError("pixel_levels and semantic_levels must be at least 1.")
        if not 0 < self.encoder_depth_run <= self.encoder_layers:
            raise InputError(f"encoder_feature_index {self.encoder_feature_index} does not name a layer; use -2.")

    @property
    def levels(self) -> int:
        """Number of residual levels = number of codebooks."""
        return max(self.pixel_levels, self.semantic_levels)

    @property
    def grid_size(self) -> int:
        """Tokens per side at `image_size`; the stride drops the remainder."""
        return self.image_size // self.patch_size

    @property
    def upsampling(self) -> int:
        """Pixels per token side that the pixel decoder produces."""
        return 2 ** (len(self.pixel_decoder_channel_multipliers) - 1)

    @property
    def encoder_depth_run(self) -> int:
        """How many encoder layers run: those up to the tapped one."""
        return (
            (self.encoder_layers + 1 + self.encoder_feature_index)
            if self.encoder_feature_index < 0
            else (self.encoder_feature_index)
        )

    def encoder_config(self) -> SiglipVisionConfig:
        """The transformers configuration of the shared encoder."""
        siglip = SiglipVisionConfig(
            hidden_size=self.encoder_width,
            num_hidden_layers=self.encoder_layers,
            num_attention_heads=self.encoder_heads,
            intermediate_size=self.encoder_mlp_width,
            hidden_act=self.encoder_activation,
            layer_norm_eps=self.encoder_layernorm_eps,
            image_size=self.image_size,
            patch_size=self.patch_size,
        )
        siglip._attn_implementation = self._attn_implementation or "sdpa"
        return siglip


def _whole(value: Any, lowest: int | None) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and (lowest is None or value >= lowest)


def _wanted(name: str, annotation: str, value: Any) -> str | None:
    """What a setting should be, in words; None when `value` is that."""
    if annotation in ("int", "int | None"):
        lowest = LOWEST.get(name, 1)
        sound = _whole(value, lowest) or (value is None and annotation == "int | None")
        return None if sound else "a whole number" if lowest is None else f"a whole number from {lowest} up"
    if annotation == "float":
        sound = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        return None if sound else "a number from 0 up"
    if annotation == "bool":
        return None if isinstance(value, bool) else "true or false"
    if name == "encoder_activation":
        from transformers.activations import ACT2FN

        return None if value in ACT2FN else "an activation that transformers knows, e.g. gelu_pytorch_tanh"
    if name == "fsq_levels":
        sound = isinstance(value, list | tuple) and all(_whole(steps, 2) for steps in value)
        return None if sound else "a list of whole numbers from 2 up, e.g. [8, 5, 5, 5]"
    if name == "pixel_decoder_channel_multipliers":
        sound = isinstance(value, list | tuple) and value and all(_whole(factor, 1) for factor in value)
        return None if sound else "a list of whole numbers from 1 up, e.g. [1, 1, 2]"
    return None


def checked_config(values: dict[str, Any], where: str) -> EvoTokConfig:
    """An EvoTokConfig from plain values. transformers accepts any key silently, so unknown ones are refused here."""
    known = [name for name in EvoTokConfig.__annotations__ if not name.startswith("_")]
    for name in values:
        if name not in known:
            raise InputError(f"{where}: {name!r} is not a setting of EvoTok.{suggestion(name, known)}")
    return EvoTokConfig(**values)

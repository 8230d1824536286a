"""EvoTok at a glance, torch-free: names, variants and where each part lives."""

from __future__ import annotations

from typing import Any

from mmzoo.families import Command, Family

#: The fixture size: two updates a second on one core, with the quirks of the full model (a head count that does not
#: divide its width).
TINY: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "encoder_width": 64,
    "encoder_layers": 3,
    "encoder_heads": 4,
    "encoder_mlp_width": 128,
    "latent_dim": 8,
    "codebook_size": 64,
    "pixel_levels": 2,
    "semantic_levels": 4,
    "pixel_decoder_base_channels": 32,
    "pixel_decoder_channel_multipliers": [1, 1, 2, 2],
    "pixel_decoder_res_blocks": 1,
    "pixel_decoder_z_channels": 32,
    "semantic_width": 64,
    "semantic_blocks": 1,
    "semantic_heads": 3,
    "semantic_out_width": 64,
}

SMALL_64: dict[str, Any] = {
    "image_size": 64,
    "patch_size": 8,
    "encoder_width": 192,
    "encoder_layers": 6,
    "encoder_heads": 3,
    "encoder_mlp_width": 768,
    "latent_dim": 16,
    "codebook_size": 1024,
    "pixel_levels": 4,
    "semantic_levels": 8,
    "pixel_decoder_base_channels": 32,
    "pixel_decoder_channel_multipliers": [1, 1, 2, 4],
    "pixel_decoder_res_blocks": 1,
    "pixel_decoder_z_channels": 128,
    "semantic_width": 192,
    "semantic_blocks": 2,
    "semantic_heads": 3,
    "semantic_out_width": 192,
}

#: The demo's size: 32 px crops, 8 x 8 tokens; learns to see on two CPU cores in minutes. Not narrower than 64 channels:
#: GroupNorm has 32 groups, and one that holds a single channel takes the brightness of flat crops away.
TINY_DEMO: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 4,
    "encoder_width": 128,
    "encoder_layers": 3,
    "encoder_heads": 4,
    "encoder_mlp_width": 512,
    "latent_dim": 16,
    "codebook_size": 512,
    "pixel_levels": 4,
    "semantic_levels": 8,
    "pixel_decoder_base_channels": 64,
    "pixel_decoder_channel_multipliers": [1, 1, 1],
    "pixel_decoder_res_blocks": 0,
    "pixel_decoder_z_channels": 64,
    "semantic_width": 128,
    "semantic_blocks": 1,
    "semantic_heads": 3,
    "semantic_out_width": 128,
}

#: google/siglip2-large-patch16-256 as encoder and teacher (spec 1.1).
SIGLIP2_256: dict[str, Any] = {
    "image_size": 256,
    "patch_size": 16,
    "encoder_width": 1024,
    "encoder_layers": 24,
    "encoder_heads": 16,
    "encoder_mlp_width": 4096,
    "latent_dim": 32,
    "codebook_size": 32768,
    "pixel_levels": 4,
    "semantic_levels": 16,
    "pixel_decoder_base_channels": 128,
    "pixel_decoder_channel_multipliers": [1, 1, 2, 2, 4],
    "pixel_decoder_res_blocks": 2,
    "pixel_decoder_z_channels": 256,
    "semantic_width": 1024,
    "semantic_blocks": 3,
    "semantic_heads": 12,
    "semantic_out_width": 1024,
    "vq_warmup": 2000,
}

#: google/siglip2-so400m-patch14-384: 27 x 27 tokens, 432 px out of the decoder, resized to 384 (spec 1.1).
SIGLIP2_384: dict[str, Any] = {
    **SIGLIP2_256,
    "image_size": 384,
    "patch_size": 14,
    "encoder_width": 1152,
    "encoder_layers": 27,
    "encoder_mlp_width": 4304,
    "semantic_width": 1152,
    "semantic_out_width": 1152,
    "output_size": 384,
}

family = Family(
    name="evotok",
    task="unified image tokenizer: pixels from the early residual levels, semantics from all",
    paper="EvoTok, arXiv 2603.12108",
    licence="Apache-2.0 (this code); the authors' repository carries no licence and publishes no weights",
    config="tokenizers_visual.evotok.configuration:EvoTokConfig",
    model="tokenizers_visual.evotok.modeling:EvoTokModel",
    processor="tokenizers_visual.evotok.processing:EvoTokImageProcessor",
    official="tokenizers_visual.evotok.official",
    contract="tokenizers_visual.evotok.contract",
    stages={
        "teacher": "tokenizers_visual.evotok.teacher_training:TeacherTraining",
        "label-teacher": "tokenizers_visual.evotok.label_teacher:LabelTeacherTraining",
        "tokenizer": "tokenizers_visual.evotok.training:EvoTokTraining",
    },
    suites=("reconstruction",),
    teacher="tokenizers_visual.evotok.teacher_of_model:load_teacher",
    demo="tokenizers_visual.evotok.demo:main",
    variants={
        "tiny": TINY,
        "tiny-demo": TINY_DEMO,
        "small-64": SMALL_64,
        "siglip2-256": SIGLIP2_256,
        "siglip2-384": SIGLIP2_384,
    },
)

commands = {
    "encode": Command("tokenizers_visual.evotok.encode:main", "images to codes in bulk, as shards; resumable"),
    "reconstruct": Command("tokenizers_visual.evotok.reconstruct:main", "encode and decode images, level by level"),
}

"""What a forward pass costs, counted from the sizes of the layers: two operations a multiply-add.

Norms, activations, biases, interpolation and the learning of the codebooks are left out, as
torch.utils.flop_counter leaves them out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

from tokenizers_visual.evotok.pixel_decoder import PixelDecoder, SpatialAttention, Stage

if TYPE_CHECKING:
    from tokenizers_visual.evotok.modeling import EvoTokModel

KINDS = ("conv", "linear", "attention", "quantizer")


def forward_flops(model: EvoTokModel, tokens: int) -> dict[str, int]:
    """Operations of `forward` on one image of `tokens` grid positions (h * w), by kind of work (KINDS).

    "quantizer" is the scores of every position against every code, level by level. The layers after the tap, which
    never run, cost nothing. Works on the meta device.
    """
    config = model.config
    depth, width = config.encoder_depth_run, config.encoder_width
    semantic = model.semantic_decoder
    sequence = tokens + 1  # the cls token
    inner = config.semantic_width // config.semantic_heads * config.semantic_heads
    pixel_conv, pixel_attention = _pixel_decoder(model.pixel_decoder, tokens)
    return {
        "conv": 2 * tokens * _elements([model.encoder.embeddings, semantic.patch_embed], nn.Conv2d) + pixel_conv,
        "linear": 2 * tokens * _elements([*model.encoder.layers[:depth], model.encode_head, model.decode_head])
        + 2 * sequence * _elements(semantic.blocks),
        "attention": depth * _attention(tokens, width)
        + config.semantic_blocks * _attention(sequence, inner)
        + pixel_attention,
        "quantizer": _quantizer(model, tokens),
    }


def _quantizer(model: EvoTokModel, tokens: int) -> int:
    """Scores against every code; FSQ and LFQ round, so that only their projections count, those out per read-out."""
    config = model.config
    if config.quantizer in ("evotok", "residual_vq"):
        return 2 * tokens * config.levels * config.codebook_size * config.latent_dim
    projections = 1 + config.levels + 2  # in; out for the commitment at each level, and for the two read-outs
    linear = [module for module in model.quantizer.children() if isinstance(module, nn.Linear)]
    return 2 * tokens * projections * sum(module.weight.numel() for module in linear) // max(len(linear), 1)


def _elements(modules: Iterable[nn.Module], kind: type[nn.Linear] | type[nn.Conv2d] = nn.Linear) -> int:
    """Weight elements of the layers of a kind: each is one multiply-add for every position of the layer's output."""
    return sum(layer.weight.numel() for module in modules for layer in module.modules() if isinstance(layer, kind))


def _attention(tokens: int, width: int) -> int:
    """Queries times keys, and weights times values."""
    return 2 * 2 * tokens**2 * width


def _pixel_decoder(decoder: PixelDecoder, tokens: int) -> tuple[int, int]:
    """(convolutions, attention); every doubling has four times the positions."""
    positions = tokens
    convs = positions * _elements([decoder.post_quant, decoder.conv_in, decoder.middle], nn.Conv2d)
    attention = _spatial_attention(decoder.middle, positions)
    for stage in decoder.stages:
        assert isinstance(stage, Stage)
        convs += positions * _elements([stage.residual, stage.attention], nn.Conv2d)
        attention += _spatial_attention(stage, positions)
        if hasattr(stage, "upsample"):
            positions *= 4
            convs += positions * _elements([stage.upsample], nn.Conv2d)
    convs += positions * _elements([decoder.conv_out], nn.Conv2d)
    return 2 * convs, attention


def _spatial_attention(module: nn.Module, positions: int) -> int:
    layers = [layer for layer in module.modules() if isinstance(layer, SpatialAttention)]
    return sum(_attention(positions, layer.query.out_channels) for layer in layers)

"""The authors' checkpoint layout (spec section 4): one table of names, used in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmzoo.errors import InputError, suggestion
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.modeling import EvoTokModel

#: (ours, official) prefixes, tried in this order.
PREFIXES = (
    ("scaling.", "scaling_layer."),
    ("encoder.embeddings.", "encoder_vqkd.vision_model.embeddings."),
    ("encoder.layers.", "encoder_vqkd.vision_model.encoder.layers."),
    ("encoder.post_layernorm.", "encoder_vqkd.vision_model.post_layernorm."),
    ("encoder.head.", "encoder_vqkd.vision_model.head."),
    ("encode_head.", "encode_task_layer."),
    ("decode_head.", "decode_task_layer."),
    ("quantizer.levels.", "quantize.codebooks."),
    ("pixel_decoder.post_quant.", "post_quant_conv."),
    ("pixel_decoder.", "decoder."),
    ("semantic_decoder.", "decoder_vqkd."),
)
#: (ours, official) parts of a name, by our prefix; whole dotted words.
PARTS = {
    "quantizer.levels.": (("table", "weight"), ("counts", "cluster_size_ema"), ("sums", "embed_ema")),
    "pixel_decoder.": (
        ("middle", "mid"),
        ("stages", "conv_blocks"),
        ("residual", "res"),
        ("attention", "attn"),
        ("query", "q"),
        ("key", "k"),
        ("value", "v"),
        ("projection", "proj_out"),
        ("shortcut", "nin_shortcut"),
    ),
    "semantic_decoder.": (
        ("patch_embed", "patch_embed.proj"),
        ("norm", "fc_norm"),
        ("position_embedding", "pos_embed"),
        ("attention", "attn"),
        ("query_bias", "q_bias"),
        ("value_bias", "v_bias"),
        ("projection", "proj"),
    ),
}
#: Rolling window of codes that the authors keep for a log line: never read, but part of the file.
USAGE_WINDOW = "quantize.codebook_used"
USAGE_ROWS = 131_072

#: Names in the recorded config whose meaning is ours under another name, or that carry no setting of the network.
RENAMED = {"pixel_depth": "pixel_levels", "semantic_depth": "semantic_levels"}
IMPLIED = {
    "grid_size": lambda c: c.grid_size,
    "semantic_head_dim": lambda c: c.semantic_width // c.semantic_heads,
    "semantic_inner_width": lambda c: c.semantic_width // c.semantic_heads * c.semantic_heads,
    "pixel_decoder_groupnorm_groups": lambda _: 32,
    "pixel_decoder_groupnorm_eps": lambda _: 1e-6,
}
PROVENANCE = re.compile(
    r"(weight_seed|image_seed|min_margin.*|codebook_level_scales|variant_.*|dropped_from_.*|n_tensors|low_amplitude_.*|semantic_fold)"
)


def official_name(name: str) -> str:
    """The authors' name of one of our tensors."""
    ours, official = next(pair for pair in PREFIXES if name.startswith(pair[0]))
    rest = name.removeprefix(ours)
    table = dict(PARTS.get(ours, ()))
    return official + ".".join(table.get(word, word) for word in rest.split("."))


def config_from_official(values: Mapping[str, Any]) -> EvoTokConfig:
    """Our configuration from a recorded official one; faithful quantizer. Unknown or contrary entries are refused."""
    settings: dict[str, Any] = {"quantizer_mode": "faithful"}
    known = [name for name in EvoTokConfig.__annotations__ if not name.startswith("_")]
    for name, value in values.items():
        ours = RENAMED.get(name, name)
        if ours in known:
            settings[ours] = value
        elif name not in IMPLIED and not PROVENANCE.fullmatch(name):
            raise InputError(
                f"official config: {name!r} is not a setting of EvoTok.{suggestion(name, [*known, *RENAMED])}"
            )
    try:
        config = EvoTokConfig(**settings)
    except InputError as fault:
        raise InputError(f"official config: {fault}") from fault
    for name, implied in IMPLIED.items():
        if name in values and values[name] != implied(config):
            raise InputError(f"official config: {name} is {values[name]}, but the other sizes imply {implied(config)}.")
    return config


def _names(config: EvoTokConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Our name -> (official name, shape), for the whole model."""
    with torch.device("meta"):
        state = EvoTokModel(config).state_dict()
    return {name: (official_name(name), tuple(tensor.shape)) for name, tensor in state.items()}


def expected_layout(config: EvoTokConfig) -> dict[str, tuple[int, ...]]:
    """Official tensor names and shapes of a complete checkpoint."""
    if config.quantizer != "evotok":
        raise InputError(f"quantizer {config.quantizer!r} has no official layout: the authors' own is 'evotok'.")
    if config.slim:
        raise InputError("a slim model lacks the layers after the tap: no official layout. Import without slim.")
    layout = dict(_names(config).values())
    return {USAGE_WINDOW: (USAGE_ROWS, config.levels), **layout}


def to_ours(state: Mapping[str, Tensor], config: EvoTokConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Official tensors -> (ours, extra); extra holds what the model has no use for. Strict in names and shapes."""
    layout = expected_layout(config)
    missing = sorted(set(layout) - set(state) - {USAGE_WINDOW})
    unexpected = sorted(set(state) - set(layout))
    wrong = [
        f"{n} is {tuple(state[n].shape)}, not {layout[n]}"
        for n in layout
        if n in state and tuple(state[n].shape) != layout[n]
    ]
    for title, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", wrong)):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise InputError(
                f"official weights, {title}: {'; '.join(names[:5])}{more}. Check that --config belongs to --weights."
            )
    ours = {name: state[official] for name, (official, _) in _names(config).items()}
    for name, tensor in ours.items():
        if name.endswith(".table") and bool(tensor[-1].any()):
            raise InputError(
                f"official weights: the padding row of {official_name(name)} is not zero: no EvoTok table."
            )
    return ours, {USAGE_WINDOW: state[USAGE_WINDOW]} if USAGE_WINDOW in state else {}


def to_official(
    state: Mapping[str, Tensor], config: EvoTokConfig, extra: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Our tensors -> the authors' complete layout. `extra` is re-emitted as it came; None = a model trained here."""
    expected_layout(config)
    official = {official_name(name): tensor for name, tensor in state.items()}
    if extra is None:
        return {USAGE_WINDOW: torch.zeros(USAGE_ROWS, config.levels), **official}
    return {**extra, **official}

"""Checkpoint layouts: DINOv2's names, with experts one by one, both ways; dense DINOv2 weights, inwards.

The authors' own names are not public. Their base is DINOv2, so the official layout here is Meta's for everything that
DINOv2 has, and for the rest

    blocks.I.mlp.experts.E.fc1.weight (and fc1.bias, fc2.weight, fc2.bias)     blocks.I.mlp.router.weight (and bias)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Dinov2Config

from geospatial.crossearth_sar.configuration import CrossEarthSARConfig, setting_names
from geospatial.crossearth_sar.dense_layouts import dense_state
from geospatial.crossearth_sar.modeling import CrossEarthSARModel
from geospatial.crossearth_sar.upcycling import upcycled
from mmzoo.errors import InputError, suggestion

#: (ours, official), tensors that differ in nothing but the name.
OUTSIDE = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.mask_token", "mask_token"),
    ("embeddings.positions", "pos_embed"),
    ("embeddings.patch.weight", "patch_embed.proj.weight"),
    ("embeddings.patch.bias", "patch_embed.proj.bias"),
    ("norm.weight", "norm.weight"),
    ("norm.bias", "norm.bias"),
)
INSIDE = (
    ("norm1.weight", "norm1.weight"),
    ("norm1.bias", "norm1.bias"),
    ("norm2.weight", "norm2.weight"),
    ("norm2.bias", "norm2.bias"),
    ("attention.projection.weight", "attn.proj.weight"),
    ("attention.projection.bias", "attn.proj.bias"),
    ("scale1", "ls1.gamma"),
    ("scale2", "ls2.gamma"),
    ("experts.router.weight", "mlp.router.weight"),
    ("experts.router.bias", "mlp.router.bias"),
)
#: Ours, one by one -> official, one after the other in one tensor.
JOINED = {
    f"attn.qkv.{kind}": [f"attention.{part}.{kind}" for part in ("query", "key", "value")]
    for kind in ("weight", "bias")
}
#: Ours, stacked -> official, one tensor an expert.
STACKED = {
    "experts.up": "fc1.weight",
    "experts.up_bias": "fc1.bias",
    "experts.down": "fc2.weight",
    "experts.down_bias": "fc2.bias",
}
#: Entries of a transformers Dinov2Config that decide what is computed, and the values that this encoder has.
FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("dinov2", "crossearth_sar"),
    "num_channels": (3,),
    "hidden_act": ("gelu",),
    "qkv_bias": (True,),
    "use_swiglu_ffn": (False,),
    "hidden_dropout_prob": (0,),
    "attention_probs_dropout_prob": (0,),
}
#: Entries of files from older transformers that say nothing of the network.
OLD = ("torch_dtype", "_name_or_path")


def config_from_official(values: Mapping[str, Any]) -> CrossEarthSARConfig:
    """Our configuration from our own settings, a transformers Dinov2Config's, or both together.

    A Dinov2Config alone keeps its patch and image size (14 and 518 px); add `patch_size` and `image_size` for others.
    InputError for an entry that neither has, and for a DINOv2 that this encoder cannot be.
    """
    ours, theirs = setting_names(), {*Dinov2Config().to_dict(), *OLD}
    settings: dict[str, Any] = {}
    for name, value in values.items():
        if name in ours:
            settings[name] = value
        elif name not in theirs:
            raise InputError(
                f"official config: {name!r} is a setting of neither CrossEarth-SAR nor Dinov2.{suggestion(name, ours)}"
            )
        elif name in FIXED and value not in FIXED[name]:
            raise InputError(f"official config: {name} is {value!r}, and this encoder has {FIXED[name][0]!r}.")
    try:
        return CrossEarthSARConfig(**settings)
    except InputError as fault:
        raise InputError(f"official config: {fault}") from fault


def expected_layout(config: CrossEarthSARConfig) -> dict[str, tuple[int, ...]]:
    """Official tensor names and shapes of a complete checkpoint with experts."""
    with torch.device("meta"):
        state = CrossEarthSARModel(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in to_official(state, config, None).items()}


def to_official(
    state: Mapping[str, Tensor],
    config: CrossEarthSARConfig,
    extra: Mapping[str, Tensor] | None,  # noqa: ARG001 - nothing is ever kept apart
) -> dict[str, Tensor]:
    """Our tensors -> the official layout with experts."""
    official = {theirs: state[ours] for ours, theirs in OUTSIDE}
    for number in range(config.num_hidden_layers):
        block = f"blocks.{number}."
        official |= {block + theirs: state[block + ours] for ours, theirs in INSIDE}
        for joined, parts in JOINED.items():
            official[block + joined] = torch.cat([state[block + part] for part in parts])
        for stacked, one in STACKED.items():
            for expert, tensor in enumerate(state[block + stacked].unbind()):
                official[f"{block}mlp.experts.{expert}.{one}"] = tensor
    return official


def to_ours(state: Mapping[str, Tensor], config: CrossEarthSARConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The official layout, or dense DINOv2 weights in any of their layouts -> (ours, nothing). Strict in all names.

    Dense weights are upcycled; see geospatial.crossearth_sar.upcycling.
    """
    if not any(".mlp.experts." in name for name in state):
        state = upcycled(dense_state(state), config)
    _refuse_gaps(state, expected_layout(config))
    ours = {name: state[theirs] for name, theirs in OUTSIDE}
    for number in range(config.num_hidden_layers):
        block = f"blocks.{number}."
        ours |= {block + name: state[block + theirs] for name, theirs in INSIDE}
        for joined, parts in JOINED.items():
            ours |= {block + part: piece for part, piece in zip(parts, state[block + joined].chunk(3), strict=True)}
        for stacked, one in STACKED.items():
            experts = [state[f"{block}mlp.experts.{expert}.{one}"] for expert in range(config.num_experts)]
            ours[block + stacked] = torch.stack(experts)
    return ours, {}


def _refuse_gaps(state: Mapping[str, Tensor], layout: Mapping[str, tuple[int, ...]]) -> None:
    wrong = [
        f"{name} is {tuple(state[name].shape)}, not {layout[name]}"
        for name in layout
        if name in state and tuple(state[name].shape) != layout[name]
    ]
    for title, names in (
        ("missing", sorted(layout.keys() - state.keys())),
        ("unexpected", sorted(state.keys() - layout.keys())),
        ("wrong shape", wrong),
    ):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise InputError(
                f"official weights, {title}: {'; '.join(names[:5])}{more}. Check that --config belongs to --weights."
            )

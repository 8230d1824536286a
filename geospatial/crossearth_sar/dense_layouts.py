"""The names that dense DINOv2 weights go by: Meta's own (timm's too), and two generations of transformers'.

All are brought to Meta's names, in which query, key and value are one tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mmzoo.errors import InputError

#: transformers -> Meta, outside the blocks. Hub files and `Dinov2Model.state_dict()` differ only inside them.
OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
#: transformers -> Meta, inside a block: first what Hub files say, then what newer versions have in memory.
INSIDE = {
    "attention.attention.query": "attn.q",
    "attention.attention.key": "attn.k",
    "attention.attention.value": "attn.v",
    "attention.output.dense": "attn.proj",
    "attention.q_proj": "attn.q",
    "attention.k_proj": "attn.k",
    "attention.v_proj": "attn.v",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
#: Parts of other models of the DINOv2 line, and what to say of them.
REFUSED = {
    "register_tokens": "has register tokens, which this encoder has not. Take the weights without registers",
    "reg_token": "has register tokens, which this encoder has not. Take the weights without registers",
    "mlp.w12": "has SwiGLU layers (ViT-g). Take ViT-S, B or L",
    "mlp.weights_in": "has SwiGLU layers (ViT-g). Take ViT-S, B or L",
    "mlp.gate_proj": "has SwiGLU layers (ViT-g). Take ViT-S, B or L",
}


def dense_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Dense DINOv2 tensors under Meta's names, whichever of the layouts they came in; InputError for a sibling model.

    timm leaves out the mask token, which only pre-training used: it is zeros then.
    """
    for name in state:
        for part, reason in REFUSED.items():
            if part in name:
                raise InputError(f"official weights: {name} {reason}.")
    named = {_meta_name(name.removeprefix("dinov2.")): tensor for name, tensor in state.items()}
    dense = _joined(named)
    if "cls_token" in dense and "mask_token" not in dense:
        dense["mask_token"] = torch.zeros_like(dense["cls_token"][0])
    return dense


def _meta_name(name: str) -> str:
    found = BLOCK.fullmatch(name)
    if found is None:
        return OUTSIDE.get(name, name)
    number, rest = found.groups()
    for theirs, metas in INSIDE.items():
        if rest == theirs or rest.startswith(theirs + "."):
            return f"blocks.{number}.{metas}{rest.removeprefix(theirs)}"
    return f"blocks.{number}.{rest}"


def _joined(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value of each block as one tensor, where they came apart."""
    joined: dict[str, Tensor] = {}
    for name, tensor in named.items():
        stem, _, kind = name.rpartition(".")
        if not stem.endswith((".attn.q", ".attn.k", ".attn.v")):
            joined[name] = tensor
        elif stem.endswith(".attn.q"):
            parts = [named.get(f"{stem[:-1]}{part}.{kind}") for part in "qkv"]
            if any(part is None for part in parts):
                raise InputError(f"official weights, missing: key or value beside {name}. Is the file complete?")
            joined[f"{stem[:-1]}qkv.{kind}"] = torch.cat([part for part in parts if part is not None])
    return joined

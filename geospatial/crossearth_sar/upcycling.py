"""A dense DINOv2 becomes a sparse one: each feed-forward layer is copied to every expert (spec sections 1.2 and 1.4).

With gates that sum to 1 (`renorm`, `ste`) the result computes what the dense model does, whatever its routers say.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from geospatial.crossearth_sar.blocks import resized_grid
from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.router import DESCRIPTORS
from mmzoo.errors import InputError

#: The routers have no dense counterpart. Their start is drawn from this seed, so that an import is a function of its
#: files.
ROUTER_SEED = 0


def upcycled(dense: Mapping[str, Tensor], config: CrossEarthSARConfig) -> dict[str, Tensor]:
    """Dense tensors under Meta's names -> the sparse layout of `official.py`, for the sizes of `config`.

    The patch kernel and the position grid are resized where `config` has other ones. What is missing or superfluous is
    left to `official.to_ours` to say.
    """
    sparse = {name: tensor for name, tensor in dense.items() if ".mlp." not in name}
    for name, tensor in dense.items():
        if ".mlp." in name:
            block, _, layer = name.partition(".mlp.")
            for expert in range(config.num_experts):
                sparse[f"{block}.mlp.experts.{expert}.{layer}"] = tensor
    kernel, positions = dense.get("patch_embed.proj.weight"), dense.get("pos_embed")
    if kernel is not None:
        sparse["patch_embed.proj.weight"] = resized_kernel(kernel, config.patch_size)
    if positions is not None:
        sparse["pos_embed"] = resized_positions(positions, config.grid_size)
    return {**sparse, **starting_routers(config)}


def starting_routers(config: CrossEarthSARConfig) -> dict[str, Tensor]:
    """Weights N(0, router_std), biases 0, of every block's router."""
    random = torch.Generator().manual_seed(ROUTER_SEED)
    shape = (config.num_experts, config.hidden_size + DESCRIPTORS)
    routers: dict[str, Tensor] = {}
    for block in range(config.num_hidden_layers):
        routers[f"blocks.{block}.mlp.router.weight"] = torch.randn(shape, generator=random) * config.router_std
        routers[f"blocks.{block}.mlp.router.bias"] = torch.zeros(config.num_experts)
    return routers


def spread_over_experts(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of an encoder with one expert, for an encoder `own` with several: its expert n times, own's routers.

    Any other state is given back as it is.
    """
    routers = {name for name in own if ".router." in name}
    dense = {name for name in routers if name in state and len(state[name]) == 1}
    if not dense or dense != routers or all(len(own[name]) == 1 for name in routers):
        return dict(state)
    layers = tuple(name.partition("router.")[0] for name in routers)
    spread = {}
    for name, tensor in state.items():
        several = name in own and name.startswith(layers) and tensor.shape[:1] == (1,)
        spread[name] = tensor.expand(len(own[name]), *tensor.shape[1:]) if several else tensor
    return {**spread, **{name: own[name] for name in routers}}


def resized_kernel(kernel: Tensor, size: int) -> Tensor:
    """A patch kernel (C, 3, p, p) with `size` px a side: bicubic, corners not aligned, as the paper's relatives do."""
    if kernel.ndim != 4 or kernel.shape[-1] == kernel.shape[-2] == size:
        return kernel
    resized = F.interpolate(kernel.float(), size=(size, size), mode="bicubic", align_corners=False)
    return resized.to(kernel.dtype)


def resized_positions(positions: Tensor, side: int) -> Tensor:
    """A position table (1, 1 + s * s, C), CLS first, for a grid of `side` places a side."""
    count = positions.shape[1] - 1 if positions.ndim == 3 else 0
    if count < 1 or round(count**0.5) ** 2 != count:
        raise InputError(f"official weights: pos_embed is {tuple(positions.shape)}; expected (1, 1 + side * side, C).")
    return torch.cat([positions[:, :1], resized_grid(positions[:, 1:], side, side)], 1)

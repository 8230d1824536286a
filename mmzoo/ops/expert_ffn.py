"""A feed-forward layer of n experts, of which each token uses k: time in proportion to k, not n.

Source: CrossEarth-SAR (arXiv 2603.12008), spec sections 1.4 and 7. `reference` is the definition, `expert_ffn` the same
at speed. Routing: mmzoo.ops.expert_routing; how experts are run: mmzoo.ops.expert_table.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mmzoo.ops.expert_dispatch import combine, dispatch, sort_by_expert
from mmzoo.ops.expert_grouped import grouped_experts
from mmzoo.ops.expert_loop import ACTIVATIONS, loop_experts
from mmzoo.ops.expert_routing import Routing
from mmzoo.ops.expert_table import Method, choose_method


class ExpertWeights(NamedTuple):
    """Weights of n experts, stacked, each pair as in torch.nn.Linear.

    up (n, H, C), up_bias (n, H), down (n, C_out, H), down_bias (n, C_out).
    """

    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor


def reference(tokens: Tensor, routing: Routing, weights: ExpertWeights, activation: str = "gelu") -> Tensor:
    """tokens (T, C) -> (T, C_out): every expert on every token, then the sum weighted by the gates of the chosen."""
    act = ACTIVATIONS[activation][0]
    hidden = torch.einsum("tc,nhc->tnh", tokens, weights.up) + weights.up_bias
    answers = torch.einsum("tnh,ndh->tnd", act(hidden), weights.down) + weights.down_bias
    gates = torch.ones_like(routing.choice) if routing.gates is None else routing.gates
    shares = tokens.new_zeros(len(tokens), len(weights.up)).scatter(1, routing.choice, gates.to(tokens.dtype))
    return torch.einsum("tn,tnd->td", shares, answers)


def expert_ffn(
    tokens: Tensor,
    routing: Routing,
    weights: ExpertWeights,
    activation: str = "gelu",
    method: Method = "auto",
) -> Tensor:
    """tokens (T, C) -> (T, C_out), in the dtype of `weights`, or autocast's; agrees with `reference` to rounding.

    Each token runs through the experts of its row of `routing.choice` only. activation: a name in ACTIVATIONS. On CUDA
    the grouped method never waits for the device. ValueError: sizes that do not fit, an unknown activation or method.
    """
    _check(tokens, routing, weights, activation)
    dtype = _dtype(tokens, weights)
    cast = ExpertWeights(*(tensor.to(dtype) for tensor in weights))
    order = sort_by_expert(routing.choice, len(cast.up))
    rows = dispatch(tokens.to(dtype), order, routing.choice.shape[1])
    if choose_method(rows, cast.up, method) == "grouped":
        answers = grouped_experts(rows, order, cast, activation)
    else:
        answers = loop_experts(rows, order.ends, cast, activation)
    return combine(answers, order, None if routing.gates is None else routing.gates.to(dtype))


def chosen_method(weights: ExpertWeights, method: Method = "auto") -> Literal["loop", "grouped"]:
    """How `expert_ffn` runs some tokens through these experts, on their device and under the autocast of the caller."""
    rows = weights.up.new_empty((1, weights.up.shape[2]), dtype=_dtype(weights.up, weights))
    return choose_method(rows, weights.up, method)


def _dtype(tokens: Tensor, weights: ExpertWeights) -> torch.dtype:
    kind = tokens.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return weights.up.dtype


def _check(tokens: Tensor, routing: Routing, weights: ExpertWeights, activation: str) -> None:
    experts, hidden, width = weights.up.shape
    if tokens.ndim != 2 or tokens.shape[1] != width:
        raise ValueError(f"tokens are {tuple(tokens.shape)}; the experts take (T, {width})")
    gates, choice = routing.gates, routing.choice
    if choice.ndim != 2 or len(choice) != len(tokens) or (gates is None and choice.shape[1] != 1):
        raise ValueError(
            f"choice is {tuple(choice.shape)} for {len(tokens)} tokens; it must be (T, k), k = 1 without gates"
        )
    if gates is not None and gates.shape != choice.shape:
        raise ValueError(f"gates are {tuple(gates.shape)}, choice {tuple(choice.shape)}; they must be alike")
    if weights.up_bias.shape != (experts, hidden) or weights.down.shape[::2] != (experts, hidden):
        raise ValueError(f"the experts' weights do not fit together: {[tuple(tensor.shape) for tensor in weights]}")
    if weights.down_bias.shape != weights.down.shape[:2]:
        raise ValueError(f"the experts' weights do not fit together: {[tuple(tensor.shape) for tensor in weights]}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; it must be one of {', '.join(ACTIVATIONS)}")

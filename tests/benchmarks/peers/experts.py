"""Experts as they are often written: all on every token, a masked loop, a loop that indexes the stacked weights.

Written from the description in spec crossearth_sar.md section 7.1, plainly and with no speed in mind beyond it. Not
edited to suit a figure: a change here needs a note. tokens (T, C), choice and gates (T, k), weights (up (n, H, C),
up_bias (n, H), down (n, C, H), down_bias (n, C)) -> (T, C); GELU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Sequence[Tensor]


def one_ffn(tokens: Tensor, weights: Weights) -> Tensor:
    """What an expert does: weights without the leading n."""
    up, up_bias, down, down_bias = weights
    return F.linear(F.gelu(F.linear(tokens, up, up_bias)), down, down_bias)


def dense_all(tokens: Tensor, choice: Tensor, gates: Tensor, weights: Weights) -> Tensor:
    """Every expert on every token, masked by the gates."""
    experts = len(weights[0])
    shares = torch.zeros(len(tokens), experts, dtype=tokens.dtype).scatter(1, choice, gates)
    parts = [[tensor[expert] for tensor in map(_unbound, weights)] for expert in range(experts)]
    return sum((shares[:, e : e + 1] * one_ffn(tokens, part) for e, part in enumerate(parts)), torch.zeros(()))


def masked_loop(tokens: Tensor, choice: Tensor, gates: Tensor, weights: Weights) -> Tensor:
    """For each expert the rows where it was chosen, found by a mask, and an addition to those rows."""
    return _loop(tokens, choice, gates, list(zip(*map(_unbound, weights), strict=True)).__getitem__, len(weights[0]))


def indexing_loop(tokens: Tensor, choice: Tensor, gates: Tensor, weights: Weights) -> Tensor:
    """The masked loop that takes each expert out of the stacked weights by its index."""
    return _loop(tokens, choice, gates, lambda expert: [tensor[expert] for tensor in weights], len(weights[0]))


def sort_loop(tokens: Tensor, choice: Tensor, gates: Tensor, weights: Weights) -> Tensor:
    """Rows sorted by expert once, each expert on its piece, pieces joined; everything left to autograd."""
    k, experts = choice.shape[1], choice.flatten()
    order = experts.argsort(stable=True)
    pieces = tokens[order // k].split(torch.bincount(experts, minlength=len(weights[0])).tolist())
    parts = zip(*map(_unbound, weights), strict=True)
    answers = torch.cat([one_ffn(piece, part) for piece, part in zip(pieces, parts, strict=True)])
    answers = answers * gates.flatten()[order].unsqueeze(1)
    return torch.zeros_like(tokens).index_add(0, order // k, answers)


def _unbound(tensor: Tensor) -> tuple[Tensor, ...]:
    return tensor.unbind()


def _loop(
    tokens: Tensor, choice: Tensor, gates: Tensor, part_of: Callable[[int], Sequence[Tensor]], experts: int
) -> Tensor:
    result = torch.zeros_like(tokens)
    for expert in range(experts):
        rows, places = torch.where(choice == expert)
        if len(rows):
            answers = one_ffn(tokens[rows], part_of(expert)) * gates[rows, places].unsqueeze(1)
            result = result.index_add(0, rows, answers)
    return result

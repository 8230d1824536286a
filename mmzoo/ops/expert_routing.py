"""Which expert takes which token, with what weight, and what a router is judged by.

Source: Fedus et al., Switch Transformer (arXiv 2101.03961); CrossEarth-SAR (arXiv 2603.12008), spec sections 1.4, 1.5.
Drop-less and without noise: every token gets its k experts.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

Gate = Literal["renorm", "prob", "ste"]
GATES: tuple[str, ...] = get_args(Gate)


class Routing(NamedTuple):
    """choice (T, k) int64, best first, a tie among the best to the lowest index; gates (T, k), what each expert's
    answer is multiplied by, None = the constant 1; probabilities (T, n), the softmax over all experts.
    """

    choice: Tensor
    gates: Tensor | None
    probabilities: Tensor


class RoutingSums(NamedTuple):
    """What one batch of T tokens says of its router, as sums that add up over layers, batches and ranks.

    counts (n,) int64, choices of each expert, T * k in all; probability_sums (n,); entropy_sum (), nats, of each
    token's softmax; balance_sum (), see `balance_sum`; tokens, T.
    """

    counts: Tensor
    probability_sums: Tensor
    entropy_sum: Tensor
    balance_sum: Tensor
    tokens: int


def route(logits: Tensor, k: int, gate: Gate) -> Routing:
    """The k most probable of n experts for each row of `logits` (T, n); compute in float32 or wider.

    "renorm": the chosen probabilities divided by their sum; with k = 1 that is 1, and no gradient reaches the router.
    "prob": the probabilities as they are (Switch). "ste": the value of "renorm" with the gradient of "prob", so that a
    router learns from the task and copies of one expert still answer as one. ValueError for another k or gate.
    """
    experts = logits.shape[-1]
    if not 1 <= k <= experts:
        raise ValueError(f"k is {k}; it must be from 1 to the number of experts, {experts}")
    if gate not in GATES:
        raise ValueError(f"gate is {gate!r}; it must be one of {', '.join(GATES)}")
    probabilities = logits.softmax(-1)
    # max names the first of equals; topk promises nothing.
    chosen, choice = probabilities.max(-1, keepdim=True) if k == 1 else probabilities.topk(k, -1)
    return Routing(choice, _gates(chosen, gate), probabilities)


def _gates(chosen: Tensor, gate: Gate) -> Tensor | None:
    if gate == "prob":
        return chosen
    if gate == "renorm":
        return None if chosen.shape[-1] == 1 else chosen / chosen.sum(-1, keepdim=True)
    value = chosen.detach() / chosen.detach().sum(-1, keepdim=True)
    return value + (chosen - chosen.detach())  # in this order: the bracket is exactly 0


def expert_counts(choice: Tensor, experts: int) -> Tensor:
    """How often each of n experts was chosen (n,) int64 in `choice` (T, k), without waiting for the device."""
    if choice.device.type == "cpu":
        return torch.bincount(choice.flatten(), minlength=experts)
    # bincount looks for the largest value on the host.
    counts = torch.zeros(experts, dtype=torch.int64, device=choice.device)
    return counts.scatter_add_(0, choice.flatten(), torch.ones_like(choice.flatten()))


def balance_sum(counts: Tensor, probability_sums: Tensor, tokens: int, k: int) -> Tensor:
    """T times the balance loss n * sum_e f_e p_e: f_e the share of choices, p_e the mean probability of expert e.

    Divided by T it is 1 at perfect balance and n when one expert takes all. The loss is a product of two means, so it
    belongs to the batch whose counts these are: summed over micro-batches or ranks and divided by all tokens it is the
    mean of theirs, weighted by tokens. From counts and probability sums that were added up first, it is exact for all.
    """
    if tokens == 0:
        return probability_sums.sum()  # 0, and still part of the graph
    return len(counts) / (k * tokens) * (counts.to(probability_sums.dtype) * probability_sums).sum()


def routing_sums(routing: Routing) -> RoutingSums:
    """The sums of one batch; gradients flow through the probabilities, never through the counts."""
    tokens, experts = routing.probabilities.shape
    counts = expert_counts(routing.choice, experts)
    probability_sums = routing.probabilities.sum(0)
    entropy = torch.special.entr(routing.probabilities.detach()).sum()
    balance = balance_sum(counts, probability_sums, tokens, routing.choice.shape[-1])
    return RoutingSums(counts, probability_sums, entropy, balance, tokens)

"""Sorted rows through their experts by grouped products: one kernel for all experts, no word to the host."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmzoo.ops.expert_dispatch import Order
from mmzoo.ops.expert_loop import ACTIVATIONS, Weights


def grouped_experts(rows: Tensor, order: Order, weights: Weights, activation: str) -> Tensor:
    """As `expert_loop.loop_experts`. The kernel knows no bias; F.embedding, whose backward sorts instead of adding
    atomically, brings each row its expert's. Its backward wants weights that lie in memory row by row.
    """
    up, up_bias, down, down_bias = (tensor.contiguous() for tensor in weights)
    act = ACTIVATIONS[activation][0]
    hidden = F.grouped_mm(rows, up.transpose(1, 2), offs=order.ends) + F.embedding(order.experts, up_bias)
    return F.grouped_mm(act(hidden), down.transpose(1, 2), offs=order.ends) + F.embedding(order.experts, down_bias)

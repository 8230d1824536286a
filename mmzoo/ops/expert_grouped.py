"""Sorted rows through their experts by grouped products: one kernel for all experts, no word to the host."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmzoo.ops.expert_dispatch import Order
from mmzoo.ops.expert_loop import ACTIVATIONS


def grouped_experts(
    rows: Tensor, order: Order, up: Tensor, up_bias: Tensor, down: Tensor, down_bias: Tensor, activation: str
) -> Tensor:
    """As `expert_loop.loop_experts`. The kernel knows no bias; F.embedding, whose backward sorts instead of adding
    atomically, brings each row its expert's. Its backward wants weights that lie in memory row by row.
    """
    act, up, down = ACTIVATIONS[activation][0], up.contiguous(), down.contiguous()
    hidden = F.grouped_mm(rows, up.transpose(1, 2), offs=order.ends) + F.embedding(order.experts, up_bias)
    return F.grouped_mm(act(hidden), down.transpose(1, 2), offs=order.ends) + F.embedding(order.experts, down_bias)

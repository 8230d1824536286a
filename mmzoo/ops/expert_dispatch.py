"""Rows to their experts and back: one stable sort, one gather each way, and no atomic addition in any direction."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Order(NamedTuple):
    """Where each of T * k (token, choice) rows lies once they are sorted by expert.

    order (T * k,): the row at each sorted place; inverse (T * k,): the sorted place of each row; experts (T * k,): the
    expert at each sorted place; ends (n,) int32: one past the last sorted place of each expert.
    """

    order: Tensor
    inverse: Tensor
    experts: Tensor
    ends: Tensor


def sort_by_expert(choice: Tensor, experts: int) -> Order:
    """The order of `choice` (T, k) int64; tokens keep their order within an expert. No wait for the device."""
    sorted_experts, order = choice.flatten().sort(stable=True)
    places = torch.arange(len(order), device=order.device)
    inverse = torch.empty_like(order).scatter_(0, order, places)
    ends = torch.searchsorted(sorted_experts, torch.arange(experts, device=order.device), right=True, out_int32=True)
    return Order(order, inverse, sorted_experts, ends)


class _Dispatch(torch.autograd.Function):
    """index_select whose backward is a gather as well: each token was taken exactly k times."""

    @staticmethod
    def forward(context: Any, tokens: Tensor, order: Tensor, inverse: Tensor, k: int) -> Tensor:
        context.save_for_backward(inverse)
        context.k = k
        return tokens.index_select(0, order if k == 1 else order.div(k, rounding_mode="floor"))

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows = gradient.index_select(0, context.saved_tensors[0])
        return rows if context.k == 1 else rows.unflatten(0, (-1, context.k)).sum(1), None, None, None


class _Collect(torch.autograd.Function):
    """Sorted rows back in their places; backward puts the gradients in sorted places."""

    @staticmethod
    def forward(context: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        context.save_for_backward(order)
        return rows.index_select(0, inverse)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient.index_select(0, context.saved_tensors[0]), None, None


def dispatch(tokens: Tensor, order: Order, k: int) -> Tensor:
    """tokens (T, C) -> rows (T * k, C), each token k times, sorted by expert."""
    rows: Any = _Dispatch.apply(tokens, order.order, order.inverse, k)
    return rows


def combine(rows: Tensor, order: Order, gates: Tensor | None) -> Tensor:
    """rows (T * k, C), sorted by expert -> (T, C), the sum of each token's rows times its `gates` (T, k).

    None says that k = 1 and every gate is the constant 1.
    """
    collected: Any = _Collect.apply(rows, order.order, order.inverse)
    if gates is None:
        return collected
    if gates.shape[-1] == 1:
        return collected * gates
    return (collected.unflatten(0, gates.shape) * gates.unsqueeze(-1)).sum(1)

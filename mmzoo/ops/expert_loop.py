"""Sorted rows through their experts, one expert after the other, with a backward that writes straight into place.

Left to autograd, taking an expert out of the stacked weights costs a copy of all gradients, and joining the pieces a
copy of all answers; here each product is written where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

#: up (n, H, C), up_bias (n, H), down (n, C_out, H), down_bias (n, C_out).
Weights = tuple[Tensor, Tensor, Tensor, Tensor]
Activation = Callable[[Tensor], Tensor]
#: Activation -> (forward, gradient of the input from the gradient of the output and the input).
ACTIVATIONS: dict[str, tuple[Activation, Callable[[Tensor, Tensor], Tensor]]] = {
    "gelu": (F.gelu, torch.ops.aten.gelu_backward),
    "gelu_tanh": (
        lambda hidden: F.gelu(hidden, approximate="tanh"),
        lambda gradient, hidden: torch.ops.aten.gelu_backward(gradient, hidden, approximate="tanh"),
    ),
    "relu": (F.relu, lambda gradient, hidden: torch.ops.aten.threshold_backward(gradient, hidden, 0)),
}


def slices(ends: Tensor) -> list[tuple[int, slice]]:
    """(expert, its rows) of the experts that have any. Waits for the device."""
    stops = ends.tolist()
    spans = zip([0, *stops[:-1]], stops, strict=True)
    return [(expert, slice(start, stop)) for expert, (start, stop) in enumerate(spans) if stop > start]


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        rows: Tensor,
        ends: Tensor,
        up: Tensor,
        up_bias: Tensor,
        down: Tensor,
        down_bias: Tensor,
        activation: str,
    ) -> Tensor:
        act = ACTIVATIONS[activation][0]
        spans = slices(ends)
        wanted = any(context.needs_input_grad)
        hidden = rows.new_empty(len(rows) if wanted else 0, up.shape[1])
        answers = rows.new_empty(len(rows), down.shape[1])
        acted: list[Tensor] = []
        for expert, span in spans:
            place = hidden[span] if wanted else rows.new_empty(span.stop - span.start, up.shape[1])
            active = act(torch.addmm(up_bias[expert], rows[span], up[expert].t(), out=place))
            torch.addmm(down_bias[expert], active, down[expert].t(), out=answers[span])
            acted += [active] if wanted else []
        context.save_for_backward(rows, up, down, hidden, *acted)
        context.spans, context.activation = spans, activation
        return answers

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, up, down, hidden, *acted = context.saved_tensors
        act_backward = ACTIVATIONS[context.activation][1]
        wants_rows, _, wants_up, wants_up_bias, wants_down, wants_down_bias, _ = context.needs_input_grad
        to_rows = torch.empty_like(rows) if wants_rows else None
        to_up, to_down = _room(up, wants_up, context.spans), _room(down, wants_down, context.spans)
        to_up_bias = up.new_zeros(up.shape[:2]) if wants_up_bias else None
        to_down_bias = down.new_zeros(down.shape[:2]) if wants_down_bias else None
        for (expert, span), active in zip(context.spans, acted, strict=True):
            given = gradient[span]
            if to_down is not None:
                torch.mm(given.t(), active, out=to_down[expert])
            if to_down_bias is not None:
                torch.sum(given, 0, out=to_down_bias[expert])
            if not (wants_rows or wants_up or wants_up_bias):
                continue
            inner = act_backward(given @ down[expert], hidden[span])
            if to_up is not None:
                torch.mm(inner.t(), rows[span], out=to_up[expert])
            if to_up_bias is not None:
                torch.sum(inner, 0, out=to_up_bias[expert])
            if to_rows is not None:
                torch.mm(inner, up[expert], out=to_rows[span])
        return to_rows, None, to_up, to_up_bias, to_down, to_down_bias, None


def _room(weights: Tensor, wanted: bool, spans: list[tuple[int, slice]]) -> Tensor | None:
    """Memory for the gradients of stacked weights; only experts without rows need zeros."""
    if not wanted:
        return None
    room = torch.empty_like(weights, memory_format=torch.contiguous_format)
    used = {expert for expert, _ in spans}
    for expert in range(len(weights)):
        if expert not in used:
            room[expert].zero_()
    return room


def loop_experts(rows: Tensor, ends: Tensor, weights: Weights, activation: str) -> Tensor:
    """rows (R, C), sorted by expert, with `ends` (n,) -> (R, C_out). All of one dtype.

    Waits once for the device, to learn the counts. Not differentiable twice.
    """
    answers: Any = _Loop.apply(rows, ends, *weights, activation)
    return answers

"""A layer of experts, forward and backward: against one dense layer of equal work, and against the usual ways."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mmzoo.ops.expert_ffn import ExpertWeights, expert_ffn
from mmzoo.ops.expert_routing import Routing, route
from tests.benchmarks.peers import experts as peer
from tests.benchmarks.record import Comparison
from tests.benchmarks.timing import Contender, interleaved


class Size(NamedTuple):
    experts: int
    k: int
    width: int
    hidden: int
    tokens: int


FEW, MANY, SMALL = Size(6, 1, 384, 1536, 4100), Size(64, 4, 384, 384, 1024), Size(6, 1, 64, 256, 1040)
ROUNDS = {FEW: 5, MANY: 3, SMALL: 60}
#: Ratios peer / ours. One dense layer does the active work alone: 1 / 1.10 is "at most 1.10 times its time".
BARS = {
    FEW: {"one dense layer": 1 / 1.10, "dense-all": 5.0, "masked loop": 1.0, "sort loop": 1.0, "grouped_mm": None},
    MANY: {"indexing loop": 1.5, "masked loop": 1.0, "sort loop": 1.0, "grouped_mm": None},
    SMALL: {"masked loop": 1.0, "sort loop": 1.0, "grouped_mm": None},
}
#: Two ways add in another order; answers and gradients are of the order of 1.
TOLERANCE = 1e-3


class Case:
    """Random tokens, routing and weights of a size; every contender is a function of nothing that returns answers."""

    def __init__(self, size: Size) -> None:
        random = torch.Generator().manual_seed(0)

        def normal(*shape: int, scale: float = 1.0) -> Tensor:
            return (torch.randn(*shape, generator=random) * scale).requires_grad_()

        self.tokens = normal(size.tokens, size.width)
        self.weights = ExpertWeights(
            normal(size.experts, size.hidden, size.width, scale=size.width**-0.5),
            normal(size.experts, size.hidden, scale=0.1),
            normal(size.experts, size.width, size.hidden, scale=size.hidden**-0.5),
            normal(size.experts, size.width, scale=0.1),
        )
        self.routing: Routing = route(torch.randn(size.tokens, size.experts, generator=random), size.k, "renorm")
        gates = self.routing.gates
        self.gates = torch.ones(size.tokens, 1) if gates is None else gates
        self.one = [tensor.detach()[0].clone().requires_grad_() for tensor in self.weights]
        self.gradient = torch.randn(size.tokens, size.width, generator=random)
        plain = (self.tokens, self.routing.choice, self.gates, self.weights)
        self.ways: dict[str, Callable[[], Tensor]] = {
            "ours": lambda: expert_ffn(self.tokens, self.routing, self.weights),
            "grouped_mm": lambda: expert_ffn(self.tokens, self.routing, self.weights, method="grouped"),
            "one dense layer": lambda: peer.one_ffn(self.tokens, self.one),
            "dense-all": lambda: peer.dense_all(*plain),
            "masked loop": lambda: peer.masked_loop(*plain),
            "indexing loop": lambda: peer.indexing_loop(*plain),
            "sort loop": lambda: peer.sort_loop(*plain),
        }

    def forget(self) -> None:
        """Drops all gradients, so that each way allocates its own."""
        for tensor in (self.tokens, *self.weights, *self.one):
            tensor.grad = None

    def step(self, name: str) -> None:
        """Forward and backward."""
        self.ways[name]().backward(self.gradient)

    def result(self, name: str) -> list[Tensor]:
        """The answers and every gradient."""
        self.forget()
        answers = self.ways[name]()
        answers.backward(self.gradient)
        return [answers.detach(), *(tensor.grad for tensor in (self.tokens, *self.weights) if tensor.grad is not None)]

    def check(self, names: list[str]) -> None:
        """AssertionError unless every way gives the same answers and gradients; each also runs once, to warm up."""
        expected = self.result("ours")
        for name in names:
            if name == "one dense layer":
                self.forget()
                self.step(name)
                continue
            found = self.result(name)
            assert len(found) == len(expected)
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=TOLERANCE)


def compare() -> list[Comparison]:
    """Three sizes; "grouped_mm" is our other method, shown to keep the table of methods honest."""
    found: list[Comparison] = []
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for size, bars in BARS.items():
        case = Case(size)
        case.check(list(bars))
        contenders = {
            name: Contender(lambda name=name, case=case: case.step(name), case.forget) for name in ["ours", *bars]
        }
        seconds = interleaved(contenders, ROUNDS[size], clock)
        label = f"n {size.experts}, k {size.k}, C {size.width}, hidden {size.hidden}, T {size.tokens}, fwd + bwd"
        found += [Comparison(label, name, seconds["ours"], seconds[name], at_least=bar) for name, bar in bars.items()]
    return found

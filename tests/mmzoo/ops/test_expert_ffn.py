"""Sparse experts against all experts on all tokens, in float64: answers, gradients, and the cases at the edge."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from mmzoo.ops import expert_ffn as op
from mmzoo.ops.expert_ffn import ExpertWeights, chosen_method, expert_ffn, reference
from mmzoo.ops.expert_routing import GATES, Routing, route, routing_sums
from mmzoo.ops.expert_table import choose_method
from tests.benchmarks.experts import Case, Size

METHODS = ("loop", "grouped")
#: torch has no grouped product in float64: that method is held against the float64 reference in float32.
CLOSE = {"loop": {"atol": 1e-10, "rtol": 1e-10}, "grouped": {"atol": 5e-4, "rtol": 1e-4}}
CLOSE["auto"] = CLOSE["loop"]


def layer(experts, width=8, hidden=12, out=4, dtype=torch.float64, seed=0):
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=dtype).requires_grad_()

    return ExpertWeights(
        normal(experts, hidden, width), normal(experts, hidden), normal(experts, out, hidden), normal(experts, out)
    )


def inputs(tokens, experts, width=8, seed=1):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, width, generator=random, dtype=torch.float64).requires_grad_()
    return x, torch.randn(tokens, experts, generator=random, dtype=torch.float64).requires_grad_()


def as_float32(tokens, weights):
    return tokens.detach().float().requires_grad_(), ExpertWeights(
        *(tensor.detach().float().requires_grad_() for tensor in weights)
    )


def outcome(function, tokens, logits, weights, k, gate, **options):
    """The answers and the gradients of everything."""
    leaves = [tokens, logits, *weights]
    answers = function(tokens, route(logits, k, gate), weights, **options)
    weighting = torch.linspace(-1, 1, answers.numel(), dtype=answers.dtype).view_as(answers)
    gradients = torch.autograd.grad((answers * weighting).sum(), leaves, allow_unused=True)
    zeros = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, leaves, strict=True)]
    return [answers.detach(), *zeros]


def assert_agree(tokens, logits, weights, k, gate, method, activation="gelu"):
    expected = outcome(reference, tokens, logits, weights, k, gate, activation=activation)
    if method == "grouped":
        tokens, weights = as_float32(tokens, weights)
    found = outcome(expert_ffn, tokens, logits, weights, k, gate, activation=activation, method=method)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, **CLOSE[method])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_every_k_and_gate(k, gate, method):
    assert_agree(*inputs(23, 4), layer(4), k, gate, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
def test_every_activation(activation, method):
    assert_agree(*inputs(9, 3), layer(3), 2, "prob", method, activation)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("taken", [0, 2, 4])
def test_all_tokens_on_one_expert_and_the_others_empty(taken, method):
    tokens, logits = inputs(7, 5)
    crowded = (logits.detach() + 100 * torch.nn.functional.one_hot(torch.tensor(taken), 5)).requires_grad_()
    assert_agree(tokens, crowded, layer(5), 1, "prob", method)


@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize("k", [1, 2])
def test_no_tokens(k, method):
    tokens, logits = inputs(0, 3)
    assert_agree(tokens, logits, layer(3), k, "prob", method)


@given(
    tokens=st.integers(0, 30),
    experts=st.integers(1, 8),
    share=st.floats(0, 1),
    gate=st.sampled_from(GATES),
    method=st.sampled_from(METHODS),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 9999),
)
@settings(max_examples=60, deadline=None)
def test_any_size_and_routing(tokens, experts, share, gate, method, spread, seed):
    x, logits = inputs(tokens, experts, seed=seed)
    logits = (logits.detach() * spread).requires_grad_()
    assert_agree(x, logits, layer(experts, seed=seed), 1 + int(share * (experts - 1)), gate, method)


def test_gradients_by_differences():
    tokens, logits = inputs(5, 3)
    weights = layer(3, hidden=4)

    def run(x, scores, *parts):
        return expert_ffn(x, route(scores, 2, "prob"), ExpertWeights(*parts))

    assert torch.autograd.gradcheck(run, (tokens, logits, *weights))


@pytest.mark.parametrize("method", METHODS)
def test_memory_in_any_order(method):
    tokens, logits = inputs(12, 4)
    tokens, weights = as_float32(tokens, layer(4))
    expected = expert_ffn(tokens, route(logits, 2, "prob"), weights, method=method)
    strided = ExpertWeights(*(t.detach().transpose(0, -1).contiguous().transpose(0, -1) for t in weights))
    x = tokens.detach().t().contiguous().t().requires_grad_()
    assert not x.is_contiguous()
    found = expert_ffn(x, route(logits.t().contiguous().t(), 2, "prob"), strided, method=method)
    torch.testing.assert_close(found, expected)
    found.sum().backward()  # the gradient of a sum has strides of 0, which torch's grouped product refuses
    (wanted,) = torch.autograd.grad(expected.sum(), tokens)
    torch.testing.assert_close(x.grad, wanted)


@pytest.mark.parametrize("frozen", range(5))
@pytest.mark.parametrize("method", METHODS)
def test_frozen_parts_get_no_gradient_and_the_others_the_same(frozen, method):
    tokens, logits = inputs(8, 3)
    tokens, weights = as_float32(tokens, layer(3))
    expected = outcome(reference, tokens, logits, weights, 1, "renorm")
    leaves = [tokens, *weights]
    leaves[frozen].requires_grad_(False)
    answers = expert_ffn(tokens, route(logits, 1, "renorm"), weights, method=method)
    answers.backward(torch.linspace(-1, 1, answers.numel(), dtype=answers.dtype).view_as(answers))
    for index, (leaf, wanted) in enumerate(zip(leaves, [expected[1], *expected[3:]], strict=True)):
        assert (leaf.grad is None) == (index == frozen)
        if leaf.grad is not None:
            torch.testing.assert_close(leaf.grad, wanted, atol=1e-4, rtol=1e-4)


def test_identical_experts_answer_as_one_whatever_the_router():
    """Sparse upcycling: with gates that sum to 1 the copies are the layer they were copied from."""
    one = layer(1)
    copies = ExpertWeights(*(tensor.expand(6, *tensor.shape[1:]) for tensor in one))
    tokens, logits = inputs(40, 6)
    single = expert_ffn(tokens, route(logits[:, :1], 1, "renorm"), one)
    for gate in ("renorm", "ste"):
        for k in (1, 3):
            torch.testing.assert_close(expert_ffn(tokens, route(logits, k, gate), copies), single, atol=1e-12, rtol=0)
    assert not torch.allclose(expert_ffn(tokens, route(logits, 1, "prob"), copies), single)


@pytest.mark.parametrize("method", METHODS)
def test_autocast_computes_in_its_dtype(method):
    tokens, logits = inputs(16, 4)
    weights = layer(4, hidden=16, out=8, dtype=torch.float32)
    exact = expert_ffn(tokens.float(), route(logits, 1, "prob"), weights, method=method)
    with torch.autocast("cpu", torch.bfloat16):
        rough = expert_ffn(tokens.float(), route(logits, 1, "prob"), weights, method=method)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, atol=0.3, rtol=0.05)
    rough.float().sum().backward()
    assert weights.up.grad is not None
    assert weights.up.grad.dtype == torch.float32


def fake_step(device, method, backward):
    """A step on tensors without values: whatever asks for one on the host raises."""
    with FakeTensorMode():
        shapes = ((4, 32, 16), (4, 32), (4, 16, 32), (4, 16))
        weights = ExpertWeights(*(torch.empty(s, device=device, dtype=torch.bfloat16).requires_grad_() for s in shapes))
        tokens = torch.empty(50, 16, device=device, dtype=torch.bfloat16).requires_grad_()
        routing = route(torch.empty(50, 4, device=device).requires_grad_(), 2, "renorm")
        answers = expert_ffn(tokens, routing, weights, method=method)
        if backward:
            answers.sum().backward()
        if device == "cuda":
            routing_sums(routing)


@pytest.mark.parametrize(("device", "backward"), [("cpu", True), ("cuda", False)])
def test_the_grouped_way_never_asks_the_device_for_a_value(device, backward):
    fake_step(device, "grouped", backward)
    with pytest.raises(DataDependentOutputException):
        fake_step(device, "loop", backward)


def test_nothing_is_kept_where_no_gradient_is_wanted():
    tokens, logits = inputs(8, 3)
    with torch.no_grad():
        quiet = expert_ffn(tokens, route(logits, 2, "prob"), layer(3))
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, expert_ffn(tokens, route(logits, 2, "prob"), layer(3)).detach())


def test_the_table_and_its_override():
    rows, up = torch.zeros(8, 16), torch.zeros(4, 32, 16)
    assert choose_method(rows, up) == "loop"
    assert choose_method(rows.bfloat16(), up.bfloat16()) == "loop"
    assert choose_method(rows, up, "grouped") == "grouped"
    assert choose_method(rows[:0], up, "grouped") == "loop"
    for wrong in (rows.double(), rows.bfloat16()):
        with pytest.raises(
            ValueError, match="'grouped' needs float32, float16 or bfloat16 and sizes of whole 16 bytes"
        ):
            choose_method(wrong, torch.zeros(4, 12, 16), "grouped")
    with pytest.raises(ValueError, match="'quick'; it must be one of auto, loop, grouped"):
        choose_method(rows, up, "quick")


@pytest.mark.parametrize("method", ["auto", "loop", "grouped"])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_way_that_is_said_is_the_way_that_is_taken(monkeypatch, method, autocast):
    taken = []
    for name in ("loop", "grouped"):
        own = getattr(op, f"{name}_experts")
        monkeypatch.setattr(op, f"{name}_experts", lambda *a, n=name, f=own: (taken.append(n), f(*a))[1])
    up, down = torch.randn(2, 16, 8), torch.randn(2, 8, 16)
    weights = ExpertWeights(up, torch.zeros(2, 16), down, torch.zeros(2, 8))
    with torch.autocast("cpu", enabled=autocast, dtype=torch.bfloat16):
        said = chosen_method(weights, method)
        routing = Routing(torch.tensor([[0], [1], [1], [0]]), None, torch.full((4, 2), 0.5))
        expert_ffn(torch.randn(4, 8), routing, weights, method=method)
    assert taken == [said]
    assert said == ("grouped" if method == "grouped" else "loop")


def test_the_table_on_cuda(monkeypatch):
    """By the table's own words: bfloat16, aligned, from compute capability 9.0 on."""

    class Rows:
        device = torch.device("cuda")

        def __init__(self, dtype):
            self.dtype = dtype

        def __len__(self):
            return 4

    for capability, dtype, width, expected in (
        ((9, 0), torch.bfloat16, 384, "grouped"),
        ((8, 0), torch.bfloat16, 384, "loop"),
        ((9, 0), torch.float32, 384, "loop"),
        ((9, 0), torch.bfloat16, 12, "loop"),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, value=capability: value)
        assert choose_method(Rows(dtype), torch.zeros(2, 16, width)) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, r, w: (t[:, :3], r, w), r"the experts take \(T, 8\)"),
        (lambda t, r, w: (t[:4], r, w), "for 4 tokens"),
        (lambda t, r, w: (t, r._replace(gates=None), w), "k = 1 without gates"),
        (lambda t, r, w: (t, r._replace(gates=r.gates[:, :1]), w), "they must be alike"),
        (lambda t, r, w: (t, r, w._replace(up_bias=w.up_bias[:2])), "do not fit together"),
        (lambda t, r, w: (t, r, w._replace(down_bias=w.down_bias[:, :2])), "do not fit together"),
    ],
)
def test_sizes_that_do_not_fit_are_named(change, message):
    tokens, logits = inputs(8, 3)
    with pytest.raises(ValueError, match=message):
        expert_ffn(*change(tokens, route(logits, 2, "prob"), layer(3)))


def test_an_unknown_activation_is_named():
    tokens, logits = inputs(8, 3)
    with pytest.raises(ValueError, match="'swish'; it must be one of gelu"):
        expert_ffn(tokens, route(logits, 1, "prob"), layer(3), "swish")


def test_the_benchs_peers_are_the_definition():
    case = Case(Size(5, 2, 8, 12, 30))
    case.check([name for name in case.ways if name != "ours"])
    wrong = Routing(case.routing.choice.flip(1), case.routing.gates, case.routing.probabilities)
    case.ways["wrong"] = lambda: reference(case.tokens, wrong, case.weights)
    with pytest.raises(AssertionError, match="not close"):
        case.check(["wrong"])

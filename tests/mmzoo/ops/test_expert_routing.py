"""Routing: who is chosen, what the gates are worth, and a balance loss with a known value and gradient."""

from __future__ import annotations

import math

import pytest
import torch

from mmzoo.ops.expert_routing import RoutingSums, balance_sum, expert_counts, route, routing_sums


def logits_of(tokens, experts, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, experts, generator=random, dtype=torch.float64).requires_grad_()


def test_the_most_probable_are_chosen_best_first():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 2.5]])
    routing = route(logits, 2, "prob")
    assert routing.choice.tolist() == [[1, 2], [2, 0]]
    torch.testing.assert_close(routing.gates, torch.gather(logits.softmax(-1), 1, routing.choice))


def test_a_tie_goes_to_the_first():
    assert route(torch.zeros(3, 5), 1, "renorm").choice.flatten().tolist() == [0, 0, 0]


@pytest.mark.parametrize("k", [1, 2, 4])
def test_gates(k):
    logits = logits_of(11, 4)
    prob, renorm, ste = (route(logits, k, gate).gates for gate in ("prob", "renorm", "ste"))
    value = torch.ones_like(prob) if renorm is None else renorm
    torch.testing.assert_close(value, prob / prob.sum(-1, keepdim=True))
    assert torch.equal(ste, value)
    weighting = torch.linspace(1, 2, prob.numel(), dtype=prob.dtype).view_as(prob)
    (of_prob,) = torch.autograd.grad((prob * weighting).sum(), logits)
    (of_ste,) = torch.autograd.grad((ste * weighting).sum(), logits)
    torch.testing.assert_close(of_ste, of_prob)
    assert (renorm is None) == (k == 1)


def test_balance_at_both_ends():
    experts, tokens = 6, 60
    even = torch.full((experts,), tokens / experts)
    assert float(balance_sum(even, even.double(), tokens, 1)) / tokens == pytest.approx(1)
    collapsed = torch.tensor([tokens, 0, 0, 0, 0, 0])
    assert float(balance_sum(collapsed, collapsed.double(), tokens, 1)) / tokens == pytest.approx(experts)
    assert float(balance_sum(even * 3, even.double(), tokens, 3)) / tokens == pytest.approx(1)


def test_balance_gradient_in_closed_form():
    """n / T * p_tj * (f_j - sum_m f_m p_tm), spec section 1.5."""
    logits = logits_of(9, 4)
    routing = route(logits, 1, "renorm")
    sums = routing_sums(routing)
    (found,) = torch.autograd.grad(sums.balance_sum / sums.tokens, logits)
    p, share = routing.probabilities, sums.counts / sums.tokens
    torch.testing.assert_close(found, 4 / 9 * p * (share - (p * share).sum(-1, keepdim=True)))


def test_sums_add_up_to_the_whole_batch():
    logits = logits_of(30, 5)
    whole = routing_sums(route(logits, 2, "prob"))
    parts = [routing_sums(route(piece, 2, "prob")) for piece in logits.split([4, 0, 26])]
    added = RoutingSums(*(sum(values) for values in zip(*parts, strict=True)))
    assert torch.equal(added.counts, whole.counts)
    torch.testing.assert_close(added.probability_sums, whole.probability_sums)
    torch.testing.assert_close(added.entropy_sum, whole.entropy_sum)
    exact = balance_sum(added.counts, added.probability_sums, added.tokens, 2)
    torch.testing.assert_close(exact, whole.balance_sum)
    assert not torch.allclose(added.balance_sum, whole.balance_sum)  # a mean of products is no product of means


def test_entropy_of_a_fair_router():
    sums = routing_sums(route(torch.zeros(7, 6, dtype=torch.float64), 1, "prob"))
    assert float(sums.entropy_sum) == pytest.approx(7 * math.log(6))
    assert sums.counts.tolist() == [7, 0, 0, 0, 0, 0]


def test_no_tokens_give_zeros_that_are_part_of_the_graph():
    logits = logits_of(0, 3)
    sums = routing_sums(route(logits, 1, "ste"))
    assert (float(sums.balance_sum.detach()), sums.counts.tolist(), sums.tokens) == (0, [0, 0, 0], 0)
    sums.balance_sum.backward()
    assert logits.grad is not None


def test_counting_without_the_host():
    """The way of other devices; meta tensors have no values, so a look at one would raise."""
    choice = torch.tensor([[0, 2], [2, 1]])
    assert expert_counts(choice, 4).tolist() == [1, 1, 2, 0]
    assert expert_counts(choice.to("meta"), 4).shape == (4,)


@pytest.mark.parametrize("k", [0, 4])
def test_k_beyond_the_experts_is_refused(k):
    with pytest.raises(ValueError, match=f"k is {k}; it must be from 1"):
        route(torch.zeros(2, 3), k, "renorm")


def test_an_unknown_gate_is_refused():
    with pytest.raises(ValueError, match="'softmax'; it must be one of renorm, prob, ste"):
        route(torch.zeros(2, 3), 1, "softmax")  # type: ignore[arg-type]

"""The router: the joined matrix that is never built, and what the physics of an image changes."""

from __future__ import annotations

import pytest
import torch

from geospatial.crossearth_sar.router import ExpertLayer, PhysicsRouter


def router(width=10, experts=6, seed=0):
    torch.manual_seed(seed)
    made = PhysicsRouter(width, experts)
    torch.nn.init.normal_(made.weight)
    torch.nn.init.normal_(made.bias)
    return made


def layer(**options):
    torch.manual_seed(0)
    made = ExpertLayer(**{"width": 8, "hidden": 16, "experts": 4, "k": 1, "gate": "ste", "method": "auto", **options})
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_linear_layer_over_the_concatenation(dtype):
    made = router().to(dtype)
    tokens, descriptors = torch.randn(3, 7, 10, dtype=dtype), torch.randn(3, 3, dtype=dtype) * 5
    found = made(tokens, descriptors)
    torch.testing.assert_close(found, made.reference(tokens, descriptors), atol=1e-5, rtol=1e-6)
    weighting = torch.randn_like(found)
    leaves = list(made.parameters())
    gradients = torch.autograd.grad((found * weighting).sum(), leaves)
    expected = torch.autograd.grad((made.reference(tokens, descriptors) * weighting).sum(), leaves)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)


def test_the_same_logits_under_autocast_and_from_a_rounded_model():
    made = router()
    tokens, descriptors = torch.randn(2, 5, 10).bfloat16(), torch.randn(2, 3)
    exact = made(tokens.float(), descriptors)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made(tokens, descriptors), exact)
    assert made.bfloat16()(tokens, descriptors).dtype == torch.float32


def test_only_the_image_changes_the_choice():
    made = layer()
    tokens = torch.randn(1, 40, 8)
    calm, rough = torch.tensor([[0.1, 5.0, 0.0]]), torch.tensor([[1.0, 0.7, 3.0]])
    assert not torch.equal(made(tokens, calm)[1], made(tokens, rough)[1])
    with torch.no_grad():
        made.router.weight[:, -3:] = 0
    assert torch.equal(made(tokens, calm)[1], made(tokens, rough)[1])


def test_a_token_does_not_depend_on_the_others():
    made = layer(k=2, gate="renorm")
    tokens, descriptors = torch.randn(3, 6, 8), torch.randn(3, 3)
    together, choice, _ = made(tokens, descriptors)
    for image in range(3):
        alone, one, _ = made(tokens[image : image + 1, 2:3], descriptors[image : image + 1])
        assert torch.equal(one[0, 0], choice[image, 2])
        torch.testing.assert_close(alone[0, 0], together[image, 2])


@pytest.mark.parametrize(("gate", "learns"), [("renorm", False), ("prob", True), ("ste", True)])
def test_which_gates_let_the_task_teach_the_router(gate, learns):
    made = layer(gate=gate)
    answers, _, sums = made(torch.randn(2, 9, 8), torch.randn(2, 3))
    answers.square().sum().backward(retain_graph=True)
    assert (made.router.weight.grad is not None) == learns
    sums.balance_sum.backward()
    assert made.router.weight.grad.abs().sum() > 0


def test_the_balance_loss_alone_evens_out_the_use_of_experts():
    made = layer(experts=4, gate="renorm")
    tokens, descriptors = torch.randn(4, 64, 8), torch.randn(4, 3)
    with torch.no_grad():
        made.router.bias[2] = 3.0
    optimizer = torch.optim.Adam(made.router.parameters(), lr=0.05)
    shares = []
    for _ in range(60):
        _, _, sums = made(tokens, descriptors)
        shares.append(float(sums.counts.max()) / sums.tokens)
        optimizer.zero_grad()
        (sums.balance_sum / sums.tokens).backward()
        optimizer.step()
    assert shares[0] > 0.6
    assert shares[-1] < 0.4


def test_active_parameters_are_the_router_and_k_experts():
    one = 8 * 16 * 2 + 16 + 8
    assert layer(k=2).active_parameters() == 2 * one + 4 * (8 + 3) + 4

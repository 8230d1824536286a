import pytest
import torch
from torch import nn

from mmzoo.errors import InputError
from mmzoo.training.optimizers import OptimizerSettings, build_optimizer, learning_rate_factor, parameter_groups


def network():
    return nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Conv1d(4, 2, 1))


def test_norms_biases_and_embeddings_are_not_decayed():
    net = network()
    net[3].requires_grad_(False)
    decayed, plain = parameter_groups(net, 0.1)
    assert [id(p) for p in decayed["params"]] == [id(net[1].weight)]
    assert {id(p) for p in plain["params"]} == {id(p) for p in (net[0].weight, net[1].bias, net[2].weight, net[2].bias)}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


def test_tied_weights_are_updated_once():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    assert sum(len(group["params"]) for group in parameter_groups(net, 0.1)) == 3


def test_schedules_warm_up_and_end_at_the_last_step():
    settings = OptimizerSettings(schedule="cosine", warmup_steps=4, final_lr_ratio=0.1)
    factor = learning_rate_factor(settings, 20)
    assert [factor(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert factor(4) == 1.0
    assert factor(12) == pytest.approx(0.55)
    assert factor(20) == pytest.approx(0.1)
    assert factor(100) == pytest.approx(0.1)
    linear = learning_rate_factor(OptimizerSettings(schedule="linear"), 10)
    assert [linear(0), linear(5), linear(10)] == [1.0, 0.5, 0.0]
    assert learning_rate_factor(OptimizerSettings(), -1)(10**6) == 1.0


def test_poly_is_a_power_of_what_is_left_after_the_warm_up():
    factor = learning_rate_factor(OptimizerSettings(schedule="poly", warmup_steps=4, final_lr_ratio=0.1), 20)
    assert [factor(0), factor(3), factor(4)] == [0.25, 1.0, 1.0]
    assert factor(12) == pytest.approx(0.1 + 0.9 * 0.5**0.9)
    assert [factor(20), factor(100)] == pytest.approx([0.1, 0.1])
    peer = torch.optim.lr_scheduler.PolynomialLR(torch.optim.SGD([nn.Parameter(torch.ones(1))], 1.0), 10, power=0.9)
    plain = learning_rate_factor(OptimizerSettings(schedule="poly"), 10)
    for number in range(11):
        assert plain(number) == pytest.approx(peer.get_last_lr()[0], abs=1e-12)
        peer.optimizer.step()
        peer.step()


def step(parts, net):
    net[1](torch.ones(4)).sum().backward()
    parts["optimizer"].step()
    parts["lr_scheduler"]["scheduler"].step()


def test_a_resumed_schedule_keeps_the_options_of_the_new_config():
    net = network()
    old = build_optimizer(net, OptimizerSettings(lr=0.1, schedule="linear", weight_decay=0.5), 10)
    step(old, net)
    new = build_optimizer(net, OptimizerSettings(lr=0.01, schedule="linear", betas=(0.5, 0.6)), 20)
    new["optimizer"].load_state_dict(old["optimizer"].state_dict())
    new["lr_scheduler"]["scheduler"].load_state_dict(old["lr_scheduler"]["scheduler"].state_dict())
    group = new["optimizer"].param_groups[0]
    assert group["lr"] == pytest.approx(0.01 * (1 - 1 / 20))
    assert (group["betas"], group["weight_decay"]) == ((0.5, 0.6), 0.0)
    assert new["optimizer"].state[net[1].weight]["step"] == 1
    step(new, net)
    assert group["lr"] == pytest.approx(0.01 * (1 - 2 / 20))


def test_mistakes_are_named():
    with pytest.raises(InputError, match=r"Set trainer\.max_steps"):
        build_optimizer(network(), OptimizerSettings(schedule="cosine"), -1)
    with pytest.raises(InputError, match="poly_power is 0"):
        build_optimizer(network(), OptimizerSettings(schedule="poly", poly_power=0.0), 10)
    with pytest.raises(InputError, match="no trainable parameters"):
        build_optimizer(network().requires_grad_(False), OptimizerSettings(), 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": -1.0}, "optimizer.lr is -1.0"),
        ({"betas": (0.9, 1.0)}, "optimizer.betas"),
        ({"eps": 0.0}, "optimizer.eps"),
        ({"weight_decay": -0.1}, "optimizer.weight_decay"),
        ({"warmup_steps": -1}, "optimizer.warmup_steps"),
        ({"final_lr_ratio": 1.5}, "optimizer.final_lr_ratio"),
    ],
)
def test_settings_no_optimiser_can_use_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        OptimizerSettings(**settings)

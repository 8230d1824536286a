"""One update: accumulated gradients are those of the big batch, and several optimisers take turns by the book."""

import pytest
import torch
from torch.nn import functional as F
from update_cases import LABELS, Gan, Labels, gan_batches, joined, label_batches, trained, windows

from mmzoo.training.loss_sums import LossSum, WeightedLoss
from mmzoo.training.window import Window


def flat(gradients):
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)]).double()


def test_accumulated_gradients_are_those_of_the_big_batch():
    batches = label_batches()
    big, _ = trained(Labels(), [joined(batches)])
    small, trainer = trained(Labels(), [Window(batches)])
    assert trainer.global_step == 1
    assert float(F.cosine_similarity(flat(big.gradients), flat(small.gradients), dim=0)) == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(flat(small.gradients), flat(big.gradients), rtol=1e-5, atol=1e-8)
    for name in ("train/loss", "train/token", "train/sequence"):
        assert float(trainer.callback_metrics[name]) == pytest.approx(float(big.trainer.callback_metrics[name]), 1e-5)


def test_the_mean_of_the_micro_batches_means_would_be_another_gradient():
    """What the case is worth: the plain way is far off on it."""
    module = Labels()
    for batch in label_batches():
        (module.losses(batch, "model").total / len(LABELS)).backward()
    plain = flat({name: p.grad for name, p in module.named_parameters()})
    exact = flat(trained(Labels(), [joined(label_batches())])[0].gradients)
    assert float(F.cosine_similarity(plain, exact, dim=0)) < 0.9


def by_hand(batches, clip=None):
    """The GAN's training written out: every line of torch that an update consists of."""
    module, n = Gan(), len(batches)
    nets = {"generator": module.generator, "critic": module.critic}
    optimizers = {k: torch.optim.AdamW(v.parameters(), module.lr[k], (0.5, 0.9), 1e-8, 0.0) for k, v in nets.items()}
    warmup = {"generator": 2, "critic": 3}
    for step, batch in enumerate(batches):
        for turn, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                w = warmup[turn]
                group["lr"] = module.lr[turn] * ((step + 1) / w if step < w else 1 - (step - w) / (n - w))
            fake = module.generator(batch["noise"])
            if turn == "generator":
                loss = F.softplus(-module.critic(fake)).mean()
            else:
                loss = F.softplus(-module.critic(batch["real"])).mean() + 2 * F.softplus(module.critic(fake)).mean()
            optimizer.zero_grad()
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(nets[turn].parameters(), clip)
            optimizer.step()
    return module


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("parts", [[12], [5, 1, 6]])
def test_two_optimisers_take_turns_as_if_written_by_hand(parts, clip):
    batches = gan_batches(6)
    module, trainer = trained(Gan(), windows(batches, parts), gradient_clip_val=clip)
    for name, value in by_hand(batches, clip).state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=1e-5, atol=1e-7, msg=name)
    assert trainer.global_step == 6
    assert len(module.norms) == 12
    if clip:
        assert max(module.norms) == pytest.approx(clip, rel=1e-4)
        assert {"train/grad_norm_generator", "train/grad_norm_critic"} <= trainer.callback_metrics.keys()
    else:
        assert max(module.norms) > 0.05


def test_an_optimiser_whose_turn_has_no_loss_yet_is_left_alone():
    module, trainer = trained(Gan(critic_from=4), gan_batches(6))
    assert [state["step"].item() for state in trainer.optimizers[1].state.values()] == [2.0] * 4
    assert trainer.global_step == 6
    module, _ = trained(Gan(critic_from=9), gan_batches(3))
    assert all(torch.equal(module.state_dict()[k], v) for k, v in Gan().state_dict().items() if k.startswith("critic"))


def test_clipping_by_value_and_a_trainer_used_twice():
    batches = gan_batches(2)
    module, trainer = trained(Gan(), batches, gradient_clip_val=1e-3, gradient_clip_algorithm="value")
    assert max(module.norms) <= 1e-3 * 32**0.5
    assert (trainer.gradient_clip_val, trainer.accumulate_grad_batches) == (1e-3, 1)


def test_micro_batches_without_terms_add_nothing():
    batches = label_batches()
    empty = {"tokens": torch.zeros(1, 6), "labels": torch.tensor([-1]), "lengths": [1]}

    class Tokens(Labels):
        def loss_counts(self, batch):
            return {"token": super().loss_counts(batch)["token"]}

        def losses(self, batch, turn):
            both = super().losses(batch, turn)
            return WeightedLoss.of(both.parts["token"], "token")

    without, _ = trained(Tokens(), [Window(batches)])
    with_empty, _ = trained(Tokens(), [Window([empty, *batches, empty])])
    torch.testing.assert_close(flat(with_empty.gradients), flat(without.gradients))
    nothing, _ = trained(Tokens(), [Window([empty, empty])])
    assert not flat(nothing.gradients).any()


def test_counts_that_contradict_the_losses_are_an_error():
    class Wrong(Gan):
        def loss_counts(self, batch):
            return {**super().loss_counts(batch), "fake": 1}

    with pytest.raises(RuntimeError, match=r"Wrong.loss_counts says 1 terms of 'fake', Wrong.losses 12"):
        trained(Wrong(), gan_batches(1))


def test_a_step_without_an_update_is_an_error():
    class Old(Gan):
        def training_step(self, batch, batch_idx):
            return self.losses(batch, "generator").total

    with pytest.raises(RuntimeError, match=r"Old.training_step changed no weights: write losses\(\)"):
        trained(Old(), gan_batches(1))


def test_numbers_are_kept_for_logged_steps_only():
    module, trainer = trained(Gan(), gan_batches(5), log_every_n_steps=2, max_steps=5)
    assert "train/generator" in trainer.callback_metrics
    assert module.logs_this_update  # the fifth: the last one of the training
    other, trainer = trained(Gan(), gan_batches(5), log_every_n_steps=4, max_steps=7, max_epochs=1)
    assert not other.logs_this_update
    assert float(trainer.callback_metrics["train/loss"]) > 0


def test_losses_add_up_only_with_their_like():
    one = WeightedLoss.of(LossSum(torch.tensor(6.0), 2), "a")
    assert float((one + one).total) == 3
    with pytest.raises(ValueError, match="do not add up"):
        one + WeightedLoss.of(LossSum(torch.tensor(6.0), 2), "b")


def test_what_was_computed_in_float32_gets_its_gradient_in_float32():
    """The backward pass runs outside of autocast, or its products would be rounded to bfloat16."""

    class Exact(Labels):
        def losses(self, batch, turn):
            with torch.autocast("cpu", enabled=False):
                return super().losses(batch, turn)

    batches = [joined(label_batches())]
    mixed, _ = trained(Exact(), batches, precision="bf16-mixed")
    torch.testing.assert_close(flat(mixed.gradients), flat(trained(Labels(), batches)[0].gradients))


def test_gradients_are_made_for_the_parameters_whose_turn_it_is():
    seen = {}

    class Watched(Gan):
        def losses(self, batch, turn):
            seen[turn] = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
            return super().losses(batch, turn)

    module, _ = trained(Watched(), gan_batches(1))
    assert {name.split(".")[0] for name in seen["generator"]} == {"generator"}
    assert {name.split(".")[0] for name in seen["critic"]} == {"critic"}
    assert all(parameter.requires_grad for parameter in module.parameters())

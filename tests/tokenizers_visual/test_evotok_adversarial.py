"""EvoTok's discriminator and adversarial losses: the recorded values, closed forms, and what must stay untouched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from transformers import SiglipVisionModel

from mmzoo.errors import InputError
from mmzoo.training.loss_sums import LossSum, WeightedLoss
from tokenizers_visual.evotok.adversarial import (
    DISCRIMINATOR_LOSSES,
    GENERATOR_LOSSES,
    LARGEST_RATIO,
    AdversarialSettings,
    Adversary,
    adaptive_weight,
)
from tokenizers_visual.evotok.discriminator import DiscriminatorSettings, PatchDiscriminator, statistics_kept
from tokenizers_visual.evotok.losses import GeneratorLossSettings, generator_loss
from tokenizers_visual.evotok.official import config_from_official
from tokenizers_visual.evotok.teacher import Teacher

# The tolerances of the recording's README.
LOGITS, LOSSES, STATISTICS, GRADIENT_SHARE = 2e-5, 5e-6, 2e-5, 1e-4
ONE_STEP = (19999, 20000, 20001)


def close(actual: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(actual.detach(), expected, rtol=0, atol=atol)


@pytest.fixture
def recorded(shared: Path) -> dict[str, Tensor]:
    folder = shared / "parity/evotok/losses"
    return load_file(folder / "inputs.safetensors") | load_file(folder / "outputs.safetensors")


@pytest.fixture
def adversary(shared: Path) -> Adversary:
    """The recorded discriminator, with the released recipe's settings."""
    folder = shared / "parity/evotok/losses"
    sizes = json.loads((folder / "config.json").read_text())
    settings = DiscriminatorSettings(channels=sizes["ndf"], layers=sizes["n_layers"])
    adversary = Adversary(AdversarialSettings(discriminator=settings))
    adversary.discriminator.load_state_dict(load_file(folder / "discriminator_state_dict.safetensors"))
    return adversary


def test_the_published_discriminator_has_the_published_size():
    discriminator = PatchDiscriminator(DiscriminatorSettings())
    assert sum(p.numel() for p in discriminator.parameters()) == 2_765_633
    assert discriminator.grid(256, 256) == (30, 30)
    images = torch.rand(1, 3, 70, 85)
    assert tuple(discriminator(images).shape) == (1, 1, *discriminator.grid(70, 85))


def test_logits_with_running_statistics_as_recorded(adversary, recorded):
    discriminator = adversary.discriminator.eval()
    for side in ("real", "fake"):
        close(discriminator(recorded[side]), recorded[f"disc_eval_{side}"], LOGITS)


def test_a_turn_of_the_discriminator_as_recorded(adversary, recorded):
    """Batch statistics, real images first, in separate passes that each move the running statistics."""
    discriminator, seen = adversary.discriminator.train(), []
    discriminator.register_forward_hook(lambda *call: seen.append(call[2]))
    parts = adversary.discriminator_parts(recorded["real"], recorded["fake"].requires_grad_())
    for logits, side in zip(seen, ("real", "fake"), strict=True):
        close(logits, recorded[f"disc_train_{side}"], LOGITS)
    loss = WeightedLoss(parts, dict.fromkeys(parts, 0.5)).total
    close(loss, recorded["disc_train_hinge_d"], LOSSES)
    loss.backward()
    assert recorded["fake"].grad is None
    for name, parameter in discriminator.named_parameters():
        expected = recorded[f"grad_hinge_d.{name}"]
        close(parameter.grad, expected, GRADIENT_SHARE * float(expected.abs().max()))
    after = {name.removeprefix("after_train."): v for name, v in recorded.items() if name.startswith("after_train.")}
    assert len(after) == 6
    for name, value in after.items():
        close(discriminator.state_dict()[name], value, STATISTICS)

    discriminator.eval()
    part = adversary.generator_part(recorded["fake"])
    close(part.mean, recorded["hinge_g_eval"], LOSSES)
    (gradient,) = torch.autograd.grad(part.mean, recorded["fake"])
    expected = recorded["grad_hinge_g_eval_fake"]
    close(gradient, expected, GRADIENT_SHARE * float(expected.abs().max()))


def discriminator_loss(name: str, real: Tensor, fake: Tensor) -> Tensor:
    of_real, of_fake = DISCRIMINATOR_LOSSES[name]
    return (of_real(real).mean() + of_fake(fake).mean()) / 2


def test_losses_of_fixed_logits_as_recorded(recorded):
    real, fake = recorded["logits_real"], recorded["logits_fake"]
    close(discriminator_loss("hinge", real, fake), recorded["hinge_d"], LOSSES)
    close(discriminator_loss("vanilla", real, fake), recorded["vanilla_d"], LOSSES)
    close(GENERATOR_LOSSES["hinge"](fake).mean(), recorded["hinge_g"], LOSSES)


def test_the_non_saturating_losses_have_their_arguments_the_right_way_round(recorded):
    """The recording has logits for labels and labels for logits: reproduced here, and not what we compute."""
    real, fake = recorded["logits_real"], recorded["logits_fake"]
    one, zero = torch.ones_like(real), torch.zeros_like(fake)
    swapped = (cross_entropy(one, real) + cross_entropy(zero, fake)) / 2
    close(swapped, recorded["nonsaturating_d_swapped"], LOSSES)
    close(cross_entropy(one, fake), recorded["nonsaturating_g_swapped"], LOSSES)

    ours = discriminator_loss("non_saturating", real, fake)
    close(ours, (cross_entropy(real, one) + cross_entropy(fake, zero)) / 2, LOSSES)
    assert abs(float(ours - swapped)) > 0.05
    close(GENERATOR_LOSSES["non_saturating"](fake).mean(), cross_entropy(fake, one), LOSSES)
    close(GENERATOR_LOSSES["vanilla"](fake).mean(), -cross_entropy(fake, zero), LOSSES)


@given(logit=st.floats(-30, 30), name=st.sampled_from(sorted(GENERATOR_LOSSES)))
def test_the_two_sides_pull_against_each_other(logit, name):
    """The generator wants high logits of its images, the discriminator low ones, and high ones of real images."""
    for loss, sign in (
        (GENERATOR_LOSSES[name], -1),
        (DISCRIMINATOR_LOSSES[name][0], -1),
        (DISCRIMINATOR_LOSSES[name][1], 1),
    ):
        x = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(loss(x), x)
        assert sign * float(slope) >= 0
    at_zero = torch.zeros((), requires_grad=True)
    assert float(torch.autograd.grad(GENERATOR_LOSSES[name](at_zero), at_zero)[0]) < 0


def test_the_combined_loss_as_recorded(shared, adversary, recorded):
    """Every part and both totals around the first adversarial step, with the recorded teacher and discriminator."""
    combined = load_file(shared / "parity/evotok/losses/combined_loss.safetensors")
    real, fake = recorded["real"], recorded["fake"]
    features = recorded_teacher(shared)(real, (4, 4))
    settings = GeneratorLossSettings(semantic=("cosine", "fold", "mse"))
    commitment = LossSum(torch.tensor(0.25), 1)
    loss = generator_loss(settings, real, fake, commitment, combined["semantic_recon"], features)
    names = {
        "rec": "reconstruction",
        "vqkd": "semantic_cosine",
        "vqkd_fold": "semantic_fold",
        "vqkd_mse": "semantic_mse",
    }
    for theirs, ours in names.items():
        close(loss.parts[ours].mean, combined[f"parts.{theirs}_loss"], LOSSES)
    adversary.eval()
    part = adversary.generator_part(fake)
    close(part.mean, combined["parts.generator_adv_loss"], LOSSES)
    against = adversary.discriminator_parts(real, fake)
    for step in ONE_STEP:
        plays = step >= adversary.settings.start
        total = loss.plus("adversarial", part, adversary.settings.weight) if plays else loss
        close(total.total, combined[f"step{step}.generator_total"], LOSSES)
        assert float(combined[f"step{step}.disc_weight"]) == (adversary.settings.weight if plays else 0)
        if plays:
            theirs = WeightedLoss(against, adversary.discriminator_weights()).total
            close(theirs, combined[f"step{step}.discriminator_total"], LOSSES)


def recorded_teacher(shared: Path) -> Teacher:
    folder = shared / "parity/evotok/tokenizer_tiny"
    config = config_from_official(json.loads((folder / "config.json").read_text()))
    network = SiglipVisionModel(config.encoder_config())
    state = load_file(folder / "teacher_state_dict.safetensors")
    network.load_state_dict({name.removeprefix("vision_model."): value for name, value in state.items()})
    return Teacher(network, "encoder.layers.1")


def test_the_generators_turn_leaves_the_discriminator_as_it_is():
    torch.manual_seed(0)
    adversary = Adversary(AdversarialSettings(discriminator=DiscriminatorSettings(8, 2))).train()
    before = {name: value.clone() for name, value in adversary.state_dict().items()}
    fake = torch.rand(3, 3, 32, 32, requires_grad=True)
    inside = adversary.generator_part(fake)
    assert all(torch.equal(value, before[name]) for name, value in adversary.state_dict().items())
    inside.mean.backward()
    assert fake.grad is not None
    assert fake.grad.any()
    fake = fake.detach()
    # By the batch's statistics all the same: those of one image are others than those of three.
    alone = sum(adversary.generator_part(image[None]).sum for image in fake)
    assert abs(float((inside.sum - alone).detach())) > 1e-3
    adversary.discriminator_parts(fake, fake)
    moved = [name for name, value in adversary.state_dict().items() if not torch.equal(value, before[name])]
    assert {name.rpartition(".")[2] for name in moved} == {"running_mean", "running_var", "num_batches_tracked"}


def test_statistics_are_kept_also_when_the_pass_fails():
    norm = nn.BatchNorm2d(2)
    with pytest.raises(RuntimeError), statistics_kept(norm):
        norm(torch.rand(1, 3, 2, 2))
    assert norm.track_running_stats


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_no_images_have_no_terms_and_gradients_of_zero(norm):
    adversary = Adversary(AdversarialSettings(discriminator=DiscriminatorSettings(8, 2, norm))).train()
    before = {name: value.clone() for name, value in adversary.state_dict().items()}
    empty = torch.zeros(0, 3, 32, 32)
    parts = adversary.discriminator_parts(empty, empty)
    WeightedLoss(parts, adversary.discriminator_weights()).total.backward()
    assert {part.count for part in parts.values()} == {0} == {adversary.count(empty)}
    assert all(p.grad is not None and not p.grad.any() for p in adversary.parameters())
    assert all(torch.equal(value, before[name]) for name, value in adversary.state_dict().items())


def test_only_group_statistics_add_up_over_a_cut():
    torch.manual_seed(1)
    images = torch.rand(5, 3, 32, 32)
    for norm, adds_up in (("group", True), ("batch", False)):
        adversary = Adversary(AdversarialSettings(discriminator=DiscriminatorSettings(8, 2, norm))).train()
        whole = adversary.generator_part(images)
        parts = [adversary.generator_part(part) for part in images.split([2, 3])]
        assert whole.count == adversary.count(images) == sum(part.count for part in parts)
        gap = (whole.sum - parts[0].sum - parts[1].sum).detach()
        assert (abs(float(gap)) < 1e-4) == adds_up


def test_the_adaptive_weight_is_the_ratio_of_the_gradients_lengths():
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    ratio = adaptive_weight(
        (weight * torch.tensor([3.0, 4.0])).sum(), (weight * torch.tensor([0.0, 2.0])).sum(), weight
    )
    assert float(ratio) == pytest.approx(5 / (2 + 1e-4))
    assert not ratio.requires_grad
    assert float(adaptive_weight((weight * 1e6).sum(), (weight * 0).sum(), weight)) == LARGEST_RATIO
    assert weight.grad is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdversarialSettings(generator_loss="hing"), "generator_loss is 'hing'. Did you mean 'hinge'"),
        (lambda: AdversarialSettings(discriminator_loss="vanila"), "Did you mean 'vanilla'"),
        (lambda: AdversarialSettings(weight=0.0), "or leave out `adversarial`"),
        (lambda: AdversarialSettings(start=0), "Give the number of its first update"),
        (lambda: DiscriminatorSettings(layers=0), "at least 1"),
        (lambda: DiscriminatorSettings(norm="bach"), "Did you mean 'batch'"),
        (lambda: PatchDiscriminator(DiscriminatorSettings()).grid(16, 64), "16 x 64 px are too small"),
        (
            lambda: PatchDiscriminator(DiscriminatorSettings()).grid(16, 64),
            "Set adversarial.discriminator.layers lower",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()

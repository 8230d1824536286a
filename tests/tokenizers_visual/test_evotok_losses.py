"""EvoTok's losses: the recorded values, and sums and counts that add up over any split of a batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mmzoo.errors import InputError
from mmzoo.training.loss_sums import LossSum
from tokenizers_visual.evotok.losses import (
    GeneratorLossSettings,
    absolute_error,
    cosine_distance,
    generator_loss,
    squared_error,
)


def close(got, expected):
    torch.testing.assert_close(got, expected, atol=5e-6, rtol=0)


def test_semantic_losses_as_recorded(shared):
    inputs = load_file(shared / "parity/evotok/losses/inputs.safetensors")
    recorded = load_file(shared / "parity/evotok/losses/outputs.safetensors")
    pair = inputs["semantic_pred"], inputs["semantic_target"]
    close(cosine_distance(*pair).mean, recorded["semantic_cosine"])
    close(cosine_distance(*pair, folds=4).mean, recorded["semantic_fold4"])
    close(squared_error(*pair).mean, recorded["semantic_mse"])


@pytest.mark.parametrize("name", ["outputs", "outputs_out_of_range"])
def test_tokenizer_losses_as_recorded(shared, name):
    folder = shared / "parity/evotok/tokenizer_tiny"
    recorded = load_file(folder / f"{name}.safetensors")
    images = load_file(folder / "inputs.safetensors")["images" + name.removeprefix("outputs")]
    loss = generator_loss(
        GeneratorLossSettings(),
        images,
        recorded["pixel_recon"],
        LossSum(recorded["commitment_loss"], 1),
        recorded["semantic_recon"],
        recorded["teacher_features"],
    )
    close(loss.parts["reconstruction"].mean, recorded["pixel_mse"])
    close(loss.parts["semantic_cosine"].mean, recorded["semantic_cosine_loss"])
    close(loss.parts["semantic_fold"].mean, recorded["semantic_fold_loss"])
    close(loss.total, recorded["generator_loss_no_lpips_no_gan"])


def test_combined_loss_before_the_adversarial_start(shared):
    """The teacher is the fixture's, whose features of these images were not stored: its parts enter as recorded."""
    recorded = load_file(shared / "parity/evotok/losses/combined_loss.safetensors")
    inputs = load_file(shared / "parity/evotok/losses/inputs.safetensors")
    config = GeneratorLossSettings(semantic=("cosine", "fold", "mse"))
    loss = generator_loss(config, inputs["real"], inputs["fake"], LossSum(torch.tensor(0.25), 1))
    close(loss.parts["reconstruction"].mean, recorded["parts.rec_loss"])
    semantic = sum(recorded[f"parts.vqkd_{name}loss"] for name in ("", "fold_", "mse_"))
    close(loss.total + semantic, recorded["step19999.generator_total"])
    adversarial = 0.5 * recorded["parts.generator_adv_loss"]
    close(loss.total + semantic + adversarial, recorded["step20000.generator_total"])


def example(batch: int, seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = {"images": (3, 4, 4), "reconstruction": (3, 4, 4), "semantics": (4, 8), "teacher_features": (4, 8)}
    return {name: torch.randn(batch, *shape, generator=random) for name, shape in shapes.items()}


def loss_of(batch: dict[str, torch.Tensor], config: GeneratorLossSettings):
    commitment = squared_error(batch["semantics"], torch.zeros_like(batch["semantics"]))
    return generator_loss(config, commitment=commitment, **batch)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=4), reconstruction=st.sampled_from(["mse", "l1"]))
def test_uneven_parts_add_up_to_the_whole(sizes, reconstruction):
    config = GeneratorLossSettings(
        reconstruction=reconstruction,
        semantic=("cosine", "fold", "mse"),
        reconstruction_weight=0.5,
        commitment_weight=2.0,
        semantic_weight=3.0,
    )
    whole = example(sum(sizes))
    split = {name: value.split(sizes) for name, value in whole.items()}
    parts = [loss_of({name: value[i] for name, value in split.items()}, config) for i in range(len(sizes))]
    added = parts[0]
    for part in parts[1:]:
        added = added + part
    expected = loss_of(whole, config)
    torch.testing.assert_close(added.total, expected.total)
    assert {n: p.count for n, p in added.parts.items()} == {n: p.count for n, p in expected.parts.items()}


def test_weights_apply_to_the_means():
    batch = example(2)
    config = GeneratorLossSettings("l1", 2.0, 3.0, ("mse",), 5.0)
    loss = loss_of(batch, config)
    expected = (
        2 * (batch["reconstruction"] - batch["images"]).abs().mean()
        + 3 * batch["semantics"].square().mean()
        + 5 * (batch["semantics"] - batch["teacher_features"]).square().mean()
    )
    torch.testing.assert_close(loss.total, expected)
    assert list(loss.parts) == ["reconstruction", "commitment", "semantic_mse"]


def test_no_terms_give_zero_and_no_gradient():
    empty = torch.zeros(0, 3, 4, 4, requires_grad=True)
    loss = absolute_error(empty, torch.zeros(0, 3, 4, 4)).mean
    loss.backward()
    assert float(loss.detach()) == 0


def test_losses_are_float32_under_autocast():
    batch = {name: value.bfloat16() for name, value in example(2).items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = loss_of(batch, GeneratorLossSettings())
    high = loss_of({name: value.float() for name, value in batch.items()}, GeneratorLossSettings())
    assert low.total.dtype == torch.float32
    torch.testing.assert_close(low.total, high.total)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeneratorLossSettings(reconstruction="mes"), "Did you mean 'mse'"),
        (lambda: GeneratorLossSettings(semantic=("cosin",)), "Did you mean 'cosine'"),
        (lambda: GeneratorLossSettings(folds=0), "folds is 0"),
        (lambda: cosine_distance(torch.ones(1, 1, 6), torch.ones(1, 1, 6), 4), "4 equal folds"),
        (lambda: squared_error(torch.ones(2), torch.ones(3)), "differ in shape"),
    ],
)
def test_wrong_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_losses_with_other_parts_do_not_add():
    with pytest.raises(ValueError, match="do not add up"):
        loss_of(example(1), GeneratorLossSettings()) + loss_of(example(1), GeneratorLossSettings(semantic=("mse",)))

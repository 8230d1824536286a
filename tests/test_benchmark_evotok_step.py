"""The plain step that EvoTok's is measured against: it computes what was recorded, so beating it means something."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.benchmarks import evotok_step
from tests.benchmarks.peers.evotok_quantizer import PlainQuantizer
from tests.benchmarks.peers.evotok_step import PlainTokenizer, generator_loss
from tests.benchmarks.timing import Figures
from tokenizers_visual.evotok.official import config_from_official

# The tolerances of the recording's README.
LATENT, PIXELS, SEMANTICS, LOSSES, STATE, GRADIENT_SHARE = 5e-5, 5e-5, 2e-5, 5e-6, 2e-5, 1e-4


def close(actual, expected, atol, rtol=0.0):
    torch.testing.assert_close(actual.detach(), expected, rtol=rtol, atol=atol)


@pytest.fixture
def tokenizer(shared):
    folder = shared / "parity/evotok/tokenizer_tiny"
    config = config_from_official(json.loads((folder / "config.json").read_text()))
    model = PlainTokenizer(config, warmup=config.vq_warmup).eval()
    state = load_file(folder / "state_dict.safetensors")
    model.load_state_dict({name.replace(".vision_model.", "."): value for name, value in state.items()})
    return model


@pytest.mark.parametrize("name", ["outputs", "outputs_out_of_range"])
@torch.no_grad()
def test_the_plain_tokenizer_gives_the_recorded_outputs(shared, tokenizer, name):
    folder = shared / "parity/evotok/tokenizer_tiny"
    expected = load_file(folder / f"{name}.safetensors")
    images = load_file(folder / "inputs.safetensors")["images" + name.removeprefix("outputs")]
    semantics, image, commitment, codes = tokenizer(images)
    assert torch.equal(codes, expected["codes"])
    close(tokenizer.z, expected["z"], LATENT)
    close(image, expected["pixel_recon"], PIXELS)
    close(semantics, expected["semantic_recon"], SEMANTICS)
    close(commitment, expected["commitment_loss"], LOSSES)
    for statistic in ("d_sem", "d_pix"):
        close(getattr(tokenizer.quantize, statistic), expected[statistic], 0, 1e-5)
    loss = generator_loss(images, image, semantics, expected["teacher_features"], commitment)
    close(loss, expected["generator_loss_no_lpips_no_gan"], LOSSES)


def test_the_plain_gradients_are_the_recorded_ones(shared, tokenizer):
    folder = shared / "parity/evotok/tokenizer_tiny"
    images = load_file(folder / "inputs.safetensors")["images"]
    target = load_file(folder / "outputs.safetensors")["teacher_features"]
    semantics, image, commitment, _ = tokenizer(images)
    generator_loss(images, image, semantics, target, commitment).backward()
    norms = json.loads((folder / "gradient_norms.json").read_text())["l2_norm"]
    checked = 0
    for name, parameter in tokenizer.named_parameters():
        norm = norms[name.replace("encoder_vqkd.", "encoder_vqkd.vision_model.")]
        assert (parameter.grad is None) == (norm is None), name
        if norm is not None:
            assert float(parameter.grad.double().norm()) == pytest.approx(norm, rel=GRADIENT_SHARE, abs=1e-6), name
            checked += 1
    assert checked > 100


RUNS = {"run_a_warmup1": 1, "run_b_warmup2": 2, "run_c_warmup1_midstate": 1, "run_d_warmup0": 0, "restart_one_step": 1}


@pytest.mark.parametrize("run", RUNS)
def test_the_plain_quantiser_learns_as_recorded(shared, run, monkeypatch):
    folder = shared / "parity/evotok/quantizer_train"
    recorded = load_file(folder / f"{run}.safetensors")
    inputs = load_file(folder / "inputs.safetensors")["x"]
    quantizer = PlainQuantizer(16, 8, 2, 4, warmup=RUNS[run], restart=run.startswith("restart")).train()
    names = ("weight", "embed_ema", "cluster_size_ema", *(["step"] if RUNS[run] else []))
    for level, book in enumerate(quantizer.codebooks):
        book.load_state_dict({name: recorded[name][0, level] for name in names})
    if run.startswith("restart"):
        orders = iter(recorded["permutation"])
        monkeypatch.setattr(torch, "randperm", lambda count: next(orders))
    steps = len(recorded["weight"]) - 1
    for step in range(steps):
        f_pix, f_sem, commitment, codes = quantizer(inputs[step])
        assert torch.equal(codes, recorded["codes"][step])
        close(commitment, recorded["commitment_loss"][step], LOSSES)
        close(f_pix, recorded["f_pix"][step], LOSSES)
        close(f_sem, recorded["f_sem"][step], LOSSES)
        for level, book in enumerate(quantizer.codebooks):
            for name in names:
                close(getattr(book, name).float(), recorded[name][step + 1, level].float(), STATE)
        close(torch.tensor(quantizer.usage), recorded["usage"][step], 0)


def test_both_steps_make_the_same_update_and_a_wrong_one_is_caught(monkeypatch):
    assert evotok_step.check("evotok/tiny", 4) == 1
    monkeypatch.setattr(evotok_step, "SEMANTIC_WEIGHT", 0.2)
    plain = evotok_step.peer_of
    monkeypatch.setattr(evotok_step, "peer_of", lambda *a, **k: weighted(plain(*a, **k)))
    with pytest.raises(AssertionError):
        evotok_step.check("evotok/tiny", 4)


def weighted(step):
    step.semantic_weight = 0.1
    return step


def test_every_lever_leaves_what_the_step_computes():
    """The loss of two steps with all levers pulled is that of none."""
    images = None
    losses = []
    for levers in ([], evotok_step.LEVERS.values()):
        ours = evotok_step.OurStep("evotok/tiny", evotok_step.SAME_RULE)
        peer = evotok_step.peer_of(ours, restart=False, discriminator=True)
        images = evotok_step.pictures(ours.module.tokenizer.config, 4)
        for pull in levers:
            pull(peer)
        losses.append([float(peer(images)) for _ in range(2)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][0] != losses[0][1]


def test_shares_add_up():
    ladder = {name: Figures((value,)) for name, value in (("peer", 2.0), ("a", 1.5), ("b", 1.0), ("rest", 1.0))}
    assert evotok_step.shares(ladder) == "a 50%, b 50%, rest 0%"

"""The whole EvoTok tokenizer against the recorded official runs (parity/evotok/tokenizer_tiny and the layouts)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmzoo.training.loss_sums import LossSum, WeightedLoss
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.family import SIGLIP2_256, SIGLIP2_384
from tokenizers_visual.evotok.losses import (
    GeneratorLossSettings,
    cosine_distance,
    generator_loss,
    squared_error,
)
from tokenizers_visual.evotok.modeling import EvoTokModel, EvoTokOutput
from tokenizers_visual.evotok.official import config_from_official, expected_layout, official_name, to_ours

# The tolerances of the recording's README.
LATENT, SUMS, PIXELS, SEMANTICS, LOSSES = 5e-5, 5e-6, 5e-5, 2e-5, 5e-6
GRADIENT_SHARE = 1e-4

#: Images in inputs.safetensors -> recorded run, output_size.
RUNS = {
    "images": ("outputs", None),
    "images_out_of_range": ("outputs_out_of_range", None),
    "images_34px": ("outputs_34px_variant", 28),
}


def close(actual: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(actual.detach(), expected, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def recording(shared: Path) -> Path:
    return shared / "parity/evotok/tokenizer_tiny"


def load_tiny(recording: Path, output_size: int | None = None) -> EvoTokModel:
    config = config_from_official(json.loads((recording / "config.json").read_text()))
    config.output_size = output_size
    ours, _ = to_ours(load_file(recording / "state_dict.safetensors"), config)
    model = EvoTokModel(config).eval()
    model.load_state_dict(ours)
    return model


def combined_loss(output: EvoTokOutput, images: Tensor, teacher_features: Tensor) -> WeightedLoss:
    commitment = LossSum(output.commitment_sum, output.commitment_count)
    return generator_loss(
        GeneratorLossSettings(), images, output.reconstruction, commitment, output.semantics, teacher_features
    )


@pytest.mark.parametrize("images_name", RUNS)
@torch.no_grad()
def test_forward_matches_the_recorded_run(recording: Path, images_name: str) -> None:
    file, output_size = RUNS[images_name]
    expected = load_file(recording / f"{file}.safetensors")
    model = load_tiny(recording, output_size)
    assert model.config.image_size == 32
    output = model(load_file(recording / "inputs.safetensors")[images_name])
    assert torch.equal(output.codes, expected["codes"])
    close(output.latent, expected["z"], LATENT)
    close(output.reconstruction, expected["pixel_recon"], PIXELS)
    close(output.semantics, expected["semantic_recon"], SEMANTICS)
    close(output.commitment_loss, expected["commitment_loss"], LOSSES)


@pytest.mark.parametrize("images_name", RUNS)
@torch.no_grad()
def test_encode_gives_the_recorded_codes(recording: Path, images_name: str) -> None:
    file, output_size = RUNS[images_name]
    expected = load_file(recording / f"{file}.safetensors")
    codes, latent = load_tiny(recording, output_size).encode(load_file(recording / "inputs.safetensors")[images_name])
    assert torch.equal(codes, expected["codes"])
    close(latent, expected["z"], LATENT)


@pytest.mark.parametrize(("file", "output_size"), RUNS.values())
@torch.no_grad()
def test_decoding_codes_matches_the_recorded_run(recording: Path, file: str, output_size: int | None) -> None:
    expected = load_file(recording / f"{file}.safetensors")
    model = load_tiny(recording, output_size)
    pixel_codes = expected["codes"][..., : model.config.pixel_levels]
    semantic_codes = expected["codes"][..., : model.config.semantic_levels]
    close(model.quantizer.decode(pixel_codes), expected["sum_from_codes_pixel"], SUMS)
    close(model.quantizer.decode(semantic_codes), expected["sum_from_codes_semantic"], SUMS)
    close(model.decode_pixels(pixel_codes), expected["pixel_recon_from_codes"], PIXELS)
    close(model.decode_semantics(semantic_codes), expected["semantic_recon_from_codes"], SEMANTICS)


@pytest.mark.parametrize("images_name", RUNS)
@torch.no_grad()
def test_losses_match_the_recorded_run(recording: Path, images_name: str) -> None:
    file, output_size = RUNS[images_name]
    expected = load_file(recording / f"{file}.safetensors")
    images = load_file(recording / "inputs.safetensors")[images_name]
    output = load_tiny(recording, output_size)(images)
    teacher = expected["teacher_features"]
    close(cosine_distance(output.semantics, teacher).mean, expected["semantic_cosine_loss"], LOSSES)
    close(cosine_distance(output.semantics, teacher, folds=4).mean, expected["semantic_fold_loss"], LOSSES)
    close(output.commitment_sum / output.commitment_count, expected["commitment_loss"], LOSSES)
    if output_size is None:
        close(squared_error(output.reconstruction, images).mean, expected["pixel_mse"], LOSSES)
        total = combined_loss(output, images, teacher).total
        close(total, expected["generator_loss_no_lpips_no_gan"], LOSSES)


def test_gradients_of_the_combined_loss_match_the_recorded_run(recording: Path) -> None:
    expected = load_file(recording / "gradients.safetensors")
    record = json.loads((recording / "gradient_norms.json").read_text())
    model = load_tiny(recording)
    images = load_file(recording / "inputs.safetensors")["images"].requires_grad_()
    output = model(images)
    output.latent.retain_grad()
    loss = combined_loss(output, images, load_file(recording / "outputs.safetensors")["teacher_features"]).total
    loss.backward()

    close(loss, expected.pop("loss"), LOSSES)
    close(loss, torch.tensor(record["loss"]), LOSSES)
    parameters = {official_name(name): parameter.grad for name, parameter in model.named_parameters()}
    found = {"images": images.grad, "z": output.latent.grad, **{f"param.{n}": g for n, g in parameters.items()}}
    for name, gradient in expected.items():
        assert found[name] is not None, name
        close(found[name], gradient, GRADIENT_SHARE * float(gradient.abs().max()))

    norms = record["l2_norm"]
    assert set(parameters) == set(norms)
    # A gradient of None and one of exact zeros both mean that nothing flows.
    silent = {name for name, gradient in parameters.items() if gradient is None or not gradient.any()}
    assert {name for name, norm in norms.items() if norm is None} <= silent
    for name, norm in norms.items():
        if norm is not None:
            assert parameters[name] is not None, name
            assert float(parameters[name].double().norm()) == pytest.approx(norm, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize(("size", "variant"), [("256", SIGLIP2_256), ("384", SIGLIP2_384)])
def test_full_size_layout_matches_the_official_one(shared: Path, size: str, variant: dict) -> None:
    record = json.loads((shared / f"parity/evotok/layout_siglip_{size}.json").read_text())
    config = EvoTokConfig(**{**variant, "vq_warmup": 2000})
    layout = expected_layout(config)
    assert layout == {entry["name"]: tuple(entry["shape"]) for entry in record["tensors"]}
    assert len(layout) == record["tensor_count"]

    with torch.device("meta"):
        model = EvoTokModel(config)
    parameters = dict(model.named_parameters())
    assert sum(p.numel() for p in parameters.values()) == record["parameter_elements"]
    assert sum(p.numel() for p in parameters.values() if p.requires_grad) == record["trainable_elements"]
    trainable = {official_name(name): parameter.requires_grad for name, parameter in parameters.items()}
    assert trainable == {e["name"]: e["trainable"] for e in record["tensors"] if e["kind"] == "parameter"}

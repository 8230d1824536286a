"""The encoder: published sizes to the last parameter, maps, descriptors, sums, dtypes, cost, checkpointing."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import mmzoo
from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.contract import example_batch
from geospatial.crossearth_sar.family import TINY, family
from geospatial.crossearth_sar.flops import forward_flops
from geospatial.crossearth_sar.modeling import CrossEarthSARModel
from geospatial.crossearth_sar.segmentation_model import CrossEarthSARForSegmentation
from geospatial.sar.descriptors import DescriptorSettings, physical_descriptors
from mmzoo.cli import main
from mmzoo.errors import InputError
from mmzoo.hub.save import save_model


def tiny(**settings):
    torch.manual_seed(0)
    return CrossEarthSARModel(CrossEarthSARConfig(**{**TINY, **settings})).eval()


def images(batch=2, seed=0, **settings):
    return example_batch(CrossEarthSARConfig(**{**TINY, **settings}), batch, seed)["pixel_values"]


@pytest.mark.parametrize(
    ("variant", "parameters", "active"),
    [
        ("tiny", 880_608, 218_848),
        ("S", 92_915_232, 22_021_152),
        ("B", 369_855_264, 86_509_344),
        ("L", 1_311_595_072, 304_347_712),
    ],
)
def test_published_sizes(variant, parameters, active, capsys):
    assert main(["models", "info", f"crossearth-sar/{variant}", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["parameters"], info["active_parameters"]) == (parameters, active)
    assert info["model"] == f"crossearth-sar/{variant}"
    assert (
        info["trainable"] == parameters - CrossEarthSARConfig(**family.variants[variant]).hidden_size
    )  # the mask token


def test_a_head_is_counted_apart(tmp_path, capsys):
    config = CrossEarthSARConfig(**{**TINY, "class_names": ["land", "water"], "head": "linear"})
    model = CrossEarthSARForSegmentation(config)
    save_model(model, tmp_path / "model")
    assert main(["models", "info", str(tmp_path / "model"), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["parameters"], info["active_parameters"]) == (880_608, 218_848)
    assert info["head_parameters"] == sum(p.numel() for p in model.head.parameters()) > 0


def test_names_in_a_saved_model_are_stable():
    state = tiny(num_hidden_layers=1).state_dict()
    block = [
        *(
            f"attention.{part}.{kind}"
            for part in ("query", "key", "value", "projection")
            for kind in ("weight", "bias")
        ),
        *(f"experts.{part}" for part in ("up", "up_bias", "down", "down_bias", "router.weight", "router.bias")),
        *(f"{norm}.{kind}" for norm in ("norm1", "norm2") for kind in ("weight", "bias")),
        "scale1",
        "scale2",
    ]
    outside = ["cls_token", "mask_token", "positions", "patch.weight", "patch.bias"]
    assert set(state) == {
        *(f"blocks.0.{name}" for name in block),
        *(f"embeddings.{name}" for name in outside),
        "norm.weight",
        "norm.bias",
    }


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (8, 8), (71, 79)])
def test_maps_and_sums_of_any_size(size):
    model = tiny(experts_per_token=2)
    with torch.no_grad():
        output = model(torch.randn(2, 3, *size))
    height, width = size[0] // 8, size[1] // 8
    tokens = height * width + 1
    assert [tuple(each.shape) for each in output.feature_maps] == [(2, 64, height, width)] * 4
    assert output.last_hidden_state.shape == (2, tokens, 64)
    assert output.expert_choice.shape == (2, 4, tokens, 2)
    assert output.routed_tokens == 2 * tokens
    assert output.expert_counts.sum(1).tolist() == [4 * tokens] * 4
    torch.testing.assert_close(output.probability_sums.sum(1), torch.full((4,), 2.0 * tokens))
    for block in range(4):
        counted = torch.bincount(output.expert_choice[:, block].flatten(), minlength=6)
        assert torch.equal(counted, output.expert_counts[block])
    last = output.feature_maps[-1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.norm(last), output.last_hidden_state[:, 1:])


def test_every_expert_gets_tokens_at_the_start():
    """Router weights of N(0, 0.02) break the tie that zeros would give to expert 0."""
    counts = tiny()(images(8)).expert_counts
    assert (counts > 0).float().mean() > 0.9
    assert not torch.equal(counts[0], counts[1])


def test_descriptors_of_what_the_settings_say():
    pixels = images(3)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    picture = pixels * std + mean
    scaled, plain = (DescriptorSettings(block=8, scaling=scaling) for scaling in ("log", "none"))
    for settings, values, domain, options in (
        ({}, picture, "log1p", {"band": "mean", "settings": scaled}),
        ({"descriptor_scaling": "none"}, picture, "log1p", {"band": "mean", "settings": plain}),
        ({"descriptor_band": 2}, picture, "log1p", {"band": 1, "settings": scaled}),
        ({"descriptor_input": "network"}, pixels.abs(), "log1p", {"band": "mean", "settings": scaled}),
        ({"descriptor_input": "raster"}, picture * 255, "display8", {"band": "mean", "settings": scaled}),
        (
            {"descriptor_input": "raster", "domain": "db", "value_range": [-30, 0]},
            picture * 30 - 30,
            "db",
            {"band": "mean", "settings": scaled},
        ),
    ):
        expected = physical_descriptors(values, domain, **options)
        found = tiny(**settings)(pixels).descriptors
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4, msg=str(settings))
    assert not torch.allclose(tiny()(pixels).descriptors, tiny(descriptor_input="network")(pixels).descriptors)


def test_without_descriptors_images_do_not_change_the_routing():
    model, pixels = tiny(descriptor_input="none"), images(3)
    found = model(pixels)
    assert not found.descriptors.any()
    with torch.no_grad():
        for block in model.blocks:
            for name, weight in block.named_parameters():
                if name.endswith("router.weight"):
                    weight[:, -3:] = 1e3
    assert torch.equal(model(pixels).expert_choice, found.expert_choice)


def test_black_pixels_stay_possible_values():
    """0 that went through the normalisation and back is 0, not a hair below it, which no amplitude can be."""
    for settings in (
        {"domain": "amplitude", "value_range": [0, 300], "descriptor_input": "raster"},
        {"descriptor_input": "raster"},
        {},
    ):
        config = CrossEarthSARConfig(**{**TINY, **settings})
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (config.image_mean, config.image_std))
        black = ((torch.zeros(1, 3, 64, 64) - mean) / std).contiguous()
        assert torch.isfinite(tiny(**settings)(black).descriptors).all()


def test_given_descriptors_stand_in_and_masked_pixels_count_not():
    model, pixels = tiny(), images(2)
    own = model(pixels)
    again = model(pixels, descriptors=own.descriptors)
    assert torch.equal(again.last_hidden_state, own.last_hidden_state)
    swapped = model(pixels, descriptors=own.descriptors.flip(0) + torch.tensor([0.0, 3.0, 0.0]))
    assert not torch.equal(swapped.expert_choice, own.expert_choice)
    valid = torch.ones(2, 64, 64, dtype=torch.bool)
    assert torch.equal(model(pixels, valid=valid).descriptors, own.descriptors)
    valid[:, :32] = False
    spoilt = pixels.clone()
    spoilt[:, :, :32] = 9.0
    assert torch.equal(model(spoilt, valid=valid).descriptors, model(pixels, valid=valid).descriptors)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(torch.zeros(1, 1, 64, 64)), r"takes images \(B, 3, H, W\)"),
        (lambda m: m(torch.zeros(3, 64, 64)), r"takes images \(B, 3, H, W\)"),
        (lambda m: m(torch.zeros(1, 3, 7, 64)), "at least 8 px a side"),
        (lambda m: m(torch.zeros(2, 3, 64, 64), torch.zeros(1, 3)), r"these images need \(2, 3\)"),
        (lambda m: m(torch.zeros(1, 3, 64, 64), valid=torch.ones(1, 8, 8, dtype=torch.bool)), "valid mask"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call(tiny())


def test_experts_are_chosen_alike_in_bfloat16_folders_too(tmp_path):
    folder = save_model(tiny(), tmp_path / "model")
    rounded = mmzoo.from_pretrained(folder, dtype=torch.bfloat16)
    assert rounded.blocks[0].experts.router.weight.dtype == torch.float32
    assert rounded.blocks[0].experts.up.dtype == torch.bfloat16
    pixels = images(4)
    exact, rough = tiny()(pixels), rounded(pixels)
    assert rough.last_hidden_state.dtype == torch.bfloat16
    assert (exact.expert_choice == rough.expert_choice).float().mean() > 0.95
    with torch.autocast("cpu", torch.bfloat16):
        mixed = tiny()(pixels)
    assert (exact.expert_choice == mixed.expert_choice).float().mean() > 0.95


def test_gradient_checkpointing_changes_no_gradient():
    def gradients(checkpointing):
        model = tiny().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        output = model(images(2))
        (output.feature_maps[-1].square().sum() + output.balance_sum.sum()).backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


def test_every_trained_parameter_gets_a_gradient():
    """Experts without tokens too: their gradient is zero and there, which data-parallel training relies on."""
    model = tiny().train()
    output = model(images(2))
    (output.feature_maps[-1].sum() + output.last_hidden_state.square().sum() + output.balance_sum.sum()).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_flops_are_those_that_torch_counts():
    model = tiny(experts_per_token=2)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images(1), descriptors=torch.zeros(1, 3))
    assert model.flops() == model.flops(64) == sum(forward_flops(model.config, 64).values())
    assert counter.get_total_flops() == pytest.approx(model.flops(), rel=1e-9)

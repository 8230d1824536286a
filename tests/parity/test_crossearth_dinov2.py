"""The encoder against transformers' Dinov2Model and timm's, on random weights, through the public importer."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from transformers import Dinov2Config, Dinov2Model

from geospatial.crossearth_sar.modeling import CrossEarthSARModel
from geospatial.crossearth_sar.official import config_from_official, to_official, to_ours

SIZES = [(64, 64), (96, 72), (8, 8), (67, 70)]  # square, other, one patch, with a remainder that the stride drops


@pytest.fixture(scope="module")
def dense():
    """A small DINOv2 with every tensor, norms and scales too, away from its starting value."""
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=64, num_attention_heads=4, num_hidden_layers=3, patch_size=8, image_size=64, mlp_ratio=4
    )
    model = Dinov2Model(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def imported(dense, state=None, **settings):
    config = config_from_official({**dense.config.to_dict(), **settings})
    model = CrossEarthSARModel(config).eval()
    ours, extra = to_ours(dense.state_dict() if state is None else state, config)
    assert extra == {}
    model.load_state_dict(ours)
    return model


@torch.no_grad()
def differences(dense, model, size, batch=2):
    """The largest difference of the last state and of each map, and the largest value that was compared."""
    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))
    expected, found = dense(images, output_hidden_states=True), model(images)
    grid = (size[0] // 8, size[1] // 8)
    pairs = [(expected.last_hidden_state, found.last_hidden_state)]
    for layer, ours in zip(model.config.feature_layers, found.feature_maps, strict=True):
        theirs = expected.hidden_states[layer + 1][:, 1:].transpose(1, 2).unflatten(2, grid)
        pairs.append((theirs, ours))
    return max(float((one - other).abs().max()) for one, other in pairs), pairs


@pytest.mark.parametrize("size", SIZES)
def test_one_expert_is_the_dense_model_bit_for_bit(dense, size):
    model = imported(dense, num_experts=1, feature_layers=[0, 1, 2])
    difference, pairs = differences(dense, model, size)
    assert difference == 0
    assert all(torch.equal(one, other) for one, other in pairs)
    assert float(pairs[0][0].abs().max()) > 0.1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gate", ["ste", "renorm"])
@pytest.mark.parametrize("k", [1, 2])
def test_upcycled_experts_answer_as_the_dense_model(dense, size, gate, k):
    """The sums of a product's remainder rows come in another order, so equal to rounding; in float64 to its rounding.

    Bit for bit where one expert gets all rows: see the next test.
    """
    model = imported(dense, gate=gate, experts_per_token=k)
    difference, pairs = differences(dense, model, size)
    assert difference < 1e-5 * float(pairs[-1][0].abs().max().clamp(min=1))
    assert len({int(choice) for choice in model(torch.randn(1, 3, 64, 64)).expert_choice.flatten()}) == 6


def test_in_float64_no_more_than_rounding_is_left(dense):
    model = imported(dense).double()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    twin = imported(dense, num_experts=1).double()
    with torch.no_grad():
        torch.testing.assert_close(
            model(images).last_hidden_state, twin(images).last_hidden_state, atol=1e-12, rtol=1e-12
        )


def test_where_one_expert_gets_all_rows_upcycling_is_bit_exact(dense):
    model = imported(dense)
    for block, expert in zip(model.blocks, (3, 0, 5), strict=True):
        with torch.no_grad():
            block.experts.router.bias[expert] = 100.0
    difference, _ = differences(dense, model, (64, 72))
    assert difference == 0
    assert model(torch.randn(1, 3, 64, 64)).expert_counts.argmax(1).tolist() == [3, 0, 5]


def test_the_switch_gate_is_another_function(dense):
    difference, _ = differences(dense, imported(dense, gate="prob"), (64, 64))
    assert difference > 1e-2


def test_names_of_hub_files(dense):
    """What facebook/dinov2-* files say, which newer transformers rename when they load."""
    old = {
        "q_proj": "attention.query",
        "k_proj": "attention.key",
        "v_proj": "attention.value",
        "o_proj": "output.dense",
    }
    state = {}
    for name, tensor in dense.state_dict().items():
        for new, former in old.items():
            name = name.replace(f"attention.{new}", f"attention.{former}")
        state[name] = tensor
    assert "encoder.layer.0.attention.attention.query.weight" in state
    assert differences(dense, imported(dense, state, num_experts=1), (64, 64))[0] == 0
    prefixed = {f"dinov2.{name}": tensor for name, tensor in state.items()}
    assert differences(dense, imported(dense, prefixed, num_experts=1), (64, 64))[0] == 0


@pytest.mark.parametrize("experts", [1, 6])
def test_timms_dinov2(dense, experts):
    torch.manual_seed(0)
    timm = VisionTransformer(
        img_size=64, patch_size=8, embed_dim=64, depth=3, num_heads=4, init_values=1.0, num_classes=0, class_token=True
    ).eval()
    for parameter in timm.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model = imported(dense, timm.state_dict(), num_experts=experts)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = timm.forward_features(images), model(images).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not model.embeddings.mask_token.any()


def test_another_patch_and_grid_are_resized_as_torch_resizes(dense):
    """14 -> 16 px and 37 -> 32 places in the real model; here 8 -> 10 and 8 -> 6."""
    model = imported(dense, patch_size=10, image_size=60)
    state = dense.state_dict()
    kernel = torch.nn.functional.interpolate(
        state["embeddings.patch_embeddings.projection.weight"], size=(10, 10), mode="bicubic", align_corners=False
    )
    assert torch.equal(model.embeddings.patch.weight, kernel)
    positions = state["embeddings.position_embeddings"]
    grid = positions[:, 1:].reshape(1, 8, 8, 64).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=(6, 6), mode="bicubic", align_corners=False)
    assert torch.equal(model.embeddings.positions[:, 1:], grid.permute(0, 2, 3, 1).reshape(1, 36, 64))
    assert torch.equal(model.embeddings.positions[:, :1], positions[:, :1])
    # The table for 6 x 6 places is what the dense model itself makes of its own on such a grid.
    dense_grid = dense.embeddings.interpolate_pos_encoding(torch.zeros(1, 37, 64), 48, 48)
    torch.testing.assert_close(model.embeddings.positions, dense_grid)


def test_the_layout_with_experts_comes_back_bit_for_bit(dense):
    model = imported(dense, num_experts=3)
    state = {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    official = to_official(state, model.config, None)
    assert official["blocks.2.attn.qkv.weight"].shape == (192, 64)
    assert torch.equal(official["blocks.1.mlp.experts.2.fc1.weight"], state["blocks.1.experts.up"][2])
    back, _ = to_ours(official, model.config)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)

"""EvoTok's two decoders, stage by stage, against the recorded official runs (parity/evotok/*_decoder)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.official import official_name
from tokenizers_visual.evotok.pixel_decoder import PixelDecoder
from tokenizers_visual.evotok.semantic_decoder import SemanticDecoder

# The tolerances of the recording's README.
IMAGE, PIXEL_STAGE, SEMANTIC = 5e-5, 1e-5, 2e-5


def load_official(module: nn.Module, prefix: str, file: Path) -> None:
    """Fills a part of the model from official tensors; every one of them must have a place."""
    official = load_file(file)
    names = {official_name(prefix + name): name for name in module.state_dict()}
    assert set(names) == set(official)
    module.load_state_dict({names[name]: tensor for name, tensor in official.items()})
    module.eval()


def record_outputs(stages: dict[str, nn.Module]) -> dict[str, Tensor]:
    """A dictionary that the next forward pass fills with the outputs of the named stages."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: found.update({name: output})

    for name, stage in stages.items():
        stage.register_forward_hook(keep(name))
    return found


@torch.no_grad()
def test_pixel_decoder_matches_every_recorded_stage(shared: Path) -> None:
    folder = shared / "parity/evotok/pixel_decoder"
    sizes = json.loads((folder / "config.json").read_text())
    decoder = PixelDecoder(
        EvoTokConfig(
            latent_dim=sizes["latent_dim"],
            pixel_decoder_z_channels=sizes["z_channels"],
            pixel_decoder_base_channels=sizes["base_channels"],
            pixel_decoder_channel_multipliers=sizes["channel_multipliers"],
            pixel_decoder_res_blocks=sizes["res_blocks_per_level"],
        )
    )
    load_official(decoder, "pixel_decoder.", folder / "state_dict.safetensors")
    found = record_outputs(
        {
            "post_quant": decoder.post_quant,
            "conv_in": decoder.conv_in,
            "mid_attention": decoder.middle[1],
            "mid_end": decoder.middle[2],
            "level0_after_upsample": decoder.stages[0],
            "level1_after_upsample": decoder.stages[1],
            "image": decoder,
        }
    )
    decoder(load_file(folder / "inputs.safetensors")["latent"])
    expected = load_file(folder / "outputs.safetensors")
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        atol = IMAGE if name == "image" else PIXEL_STAGE
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


@torch.no_grad()
def test_semantic_decoder_matches_every_recorded_stage(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared / "parity/evotok/semantic_decoder"
    sizes = json.loads((folder / "config.json").read_text())
    decoder = SemanticDecoder(
        EvoTokConfig(
            image_size=sizes["grid_size"] * sizes["patch_size"],
            patch_size=sizes["patch_size"],
            latent_dim=sizes["in_channels"],
            semantic_width=sizes["width"],
            semantic_blocks=sizes["blocks"],
            semantic_heads=sizes["heads"],
            semantic_mlp_ratio=sizes["mlp_ratio"],
            semantic_layernorm_eps=sizes["layernorm_eps"],
        )
    )
    load_official(decoder, "semantic_decoder.", folder / "state_dict.safetensors")
    found = record_outputs(
        {
            "patch_embed": decoder.patch_embed,
            **{f"block{i}": block for i, block in enumerate(decoder.blocks)},
            "tokens": decoder,
        }
    )
    weights: list[Tensor] = []
    attend = F.scaled_dot_product_attention

    def recording_attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights.append((query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(-1))
        return attend(query, key, value)

    monkeypatch.setattr(F, "scaled_dot_product_attention", recording_attend)
    decoder(load_file(folder / "inputs.safetensors")["latent"])
    found["patch_embed"] = found["patch_embed"].flatten(2).transpose(1, 2)
    found["attention_block0"] = weights[0]
    expected = load_file(folder / "outputs.safetensors")
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=SEMANTIC, msg=lambda text, n=name: f"{n}: {text}")

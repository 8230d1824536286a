"""Dense weights in, through the command that users have; what does not fit is refused by name."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, Dinov2Config, Dinov2Model

import mmzoo
from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.official import expected_layout, to_official, to_ours
from geospatial.crossearth_sar.upcycling import resized_kernel, resized_positions
from mmzoo.cli import main
from mmzoo.errors import InputError
from mmzoo.hub.auto import register_families

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8, "image_size": 32}


@pytest.fixture
def dense():
    torch.manual_seed(0)
    return Dinov2Model(Dinov2Config(**SIZES, mlp_ratio=4)).eval()


@pytest.fixture
def config():
    return CrossEarthSARConfig(**SIZES)


def test_a_downloaded_dinov2_becomes_a_model_folder(dense, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dense.save_pretrained("dinov2")
    given = json.loads((tmp_path / "dinov2/config.json").read_text())
    sizes = {**given, "patch_size": 16, "image_size": 64, "num_experts": 3, "domain": "db", "value_range": [-25, 0]}
    (tmp_path / "sizes.json").write_text(json.dumps(sizes))
    arguments = ["--weights", "dinov2/model.safetensors", "--config", "sizes.json", "--out", "sparse"]
    assert main(["models", "import", "crossearth-sar", *arguments]) == 0
    model = mmzoo.from_pretrained(tmp_path / "sparse")
    assert (model.config.patch_size, model.config.num_experts, model.config.domain) == (16, 3, "db")
    ffn = dense.encoder.layer[1].mlp.fc1.weight
    assert all(torch.equal(expert, ffn) for expert in model.blocks[1].experts.up)
    register_families()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "sparse")
    assert (processor.domain, processor.image_size) == ("db", 64)
    assert main(["models", "export", "sparse", "--out", "official.safetensors"]) == 0
    exported = load_file(tmp_path / "official.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in exported.items()} == expected_layout(model.config)
    capsys.readouterr()

    save_file({**load_file(tmp_path / "dinov2/model.safetensors"), "head.weight": torch.zeros(1)}, "more.safetensors")
    arguments[1], arguments[-1] = "more.safetensors", "other"
    assert main(["models", "import", "crossearth-sar", *arguments]) == 2
    assert "unexpected: head.weight" in capsys.readouterr().err


def test_an_import_is_a_function_of_its_files(dense, config):
    one, other = (to_ours(dense.state_dict(), config)[0] for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    router = one["blocks.0.experts.router.weight"]
    assert float(router.std()) == pytest.approx(0.02, rel=0.2)
    assert not torch.equal(router, one["blocks.1.experts.router.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layernorm.bias"), "missing: norm.bias"),
        (lambda s: s.pop("encoder.layer.1.attention.k_proj.weight"), "missing: key or value beside"),
        (lambda s: s.update({"embeddings.register_tokens": torch.zeros(1, 4, 32)}), "without registers"),
        (lambda s: s.update({"encoder.layer.0.mlp.weights_in.weight": torch.zeros(1)}), "Take ViT-S, B or L"),
        (lambda s: s.update({"encoder.layer.2.norm1.weight": torch.zeros(32)}), r"unexpected: blocks\.2\.norm1"),
        (lambda s: s.update({"layernorm.bias": torch.zeros(31)}), r"wrong shape: norm\.bias is \(31,\), not \(32,\)"),
        (lambda s: s.update({"embeddings.position_embeddings": torch.zeros(1, 12, 32)}), r"pos_embed is \(1, 12, 32\)"),
    ],
)
def test_other_weights_are_refused_by_name(dense, config, change, message):
    state = dict(dense.state_dict())
    change(state)
    with pytest.raises(InputError, match=message):
        to_ours(state, config)


def test_a_sparse_checkpoint_of_other_experts_is_refused(dense, config):
    ours, _ = to_ours(dense.state_dict(), config)
    official = to_official(ours, config, None)
    with pytest.raises(InputError, match=r"missing: blocks\.0\.mlp\.experts\.6\.fc1"):
        to_ours(official, CrossEarthSARConfig(**SIZES, num_experts=8))
    with pytest.raises(InputError, match=r"unexpected: blocks\.0\.mlp\.experts\.4\.fc1"):
        to_ours(official, CrossEarthSARConfig(**SIZES, num_experts=4))


def test_resizing_keeps_what_is_constant_and_what_has_the_size():
    kernel = torch.randn(4, 3, 14, 14)
    assert resized_kernel(kernel, 14) is kernel
    torch.testing.assert_close(resized_kernel(torch.full((4, 3, 14, 14), 0.7), 16), torch.full((4, 3, 16, 16), 0.7))
    table = torch.randn(1, 1 + 37**2, 8)
    assert torch.equal(resized_positions(table, 37), table)
    smaller = resized_positions(table, 32)
    assert smaller.shape == (1, 1025, 8)
    assert torch.equal(smaller[:, 0], table[:, 0])
    ramp = torch.arange(8.0).repeat_interleave(8).reshape(1, 64, 1)
    back = resized_positions(torch.cat([torch.zeros(1, 1, 1), ramp], 1), 16)[0, 1:, 0].reshape(16, 16)
    torch.testing.assert_close(back[:, 0] + back.flip(0)[:, 0], torch.full((16,), 7.0))  # corners not aligned
    assert (back[:, 0].diff()[2:-2] > 0.3).all()
    assert torch.equal(back[:, :1].expand(16, 16), back)

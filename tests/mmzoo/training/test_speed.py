"""The switches of the section `speed`: what they touch, that the gradient stays, and what they refuse."""

import pytest
import torch
from tiny_training import TinyConfig, TinyModel

from mmzoo.errors import InputError
from mmzoo.training import speed
from mmzoo.training.speed import SpeedSettings, blocks, parts_with_blocks
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.family import TINY
from tokenizers_visual.evotok.modeling import EvoTokModel


def gradients(settings, pixels):
    """Gradients of EvoTok tiny, and the bytes of activations that were kept for them."""
    torch.manual_seed(0)
    model = EvoTokModel(EvoTokConfig(**TINY)).train()
    settings.apply(model)
    kept: dict[int, int] = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = model(pixels)
        loss = (output.reconstruction - pixels).square().mean() + output.commitment_loss + output.semantics.mean()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, sum(kept.values()), model


def test_gradient_checkpointing_keeps_less_and_changes_nothing():
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    plain, plain_bytes, _ = gradients(SpeedSettings(), pixels)
    ours, ours_bytes, model = gradients(SpeedSettings(gradient_checkpointing=True), pixels)
    assert ours_bytes < 0.6 * plain_bytes
    assert plain.keys() == ours.keys()
    assert all(torch.equal(ours[name], plain[name]) for name in plain)
    assert len(blocks(model, "")) == 14
    with torch.no_grad():
        model(pixels)


def test_channels_last_changes_the_layout_of_convolutions_alone():
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    plain, _, one = gradients(SpeedSettings(), pixels)
    ours, _, other = gradients(SpeedSettings(channels_last=True), pixels)
    weight = other.pixel_decoder.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert other.encode_head[0].weight.is_contiguous()
    for name in plain:
        torch.testing.assert_close(ours[name], plain[name], atol=1e-5, rtol=1e-3)
    assert all(
        torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items() if "levels" not in name
    )


def test_what_is_compiled_are_the_parts_that_hold_blocks():
    model = EvoTokModel(EvoTokConfig(**TINY))
    assert parts_with_blocks(model) == [model.encoder, model.pixel_decoder, model.semantic_decoder]
    SpeedSettings(compile=True, compile_backend="eager").apply(model)
    assert [part._compiled_call_impl is not None for part in (model.encoder, model.quantizer)] == [True, False]
    assert model.state_dict().keys() == EvoTokModel(EvoTokConfig(**TINY)).state_dict().keys()


@pytest.mark.parametrize("switch", ["gradient_checkpointing", "compile", "channels_last"])
def test_a_model_without_such_parts_is_refused(switch):
    settings = SpeedSettings(**{switch: True}, compile_backend="eager")
    with pytest.raises(InputError, match=rf"speed\.{switch}: TinyModel .*Set it to false"):
        settings.apply(TinyModel(TinyConfig()))


def test_backends_are_checked(monkeypatch):
    with pytest.raises(InputError, match=r"torch has no 'inductr'\. Did you mean 'inductor'"):
        SpeedSettings(compile=True, compile_backend="inductr")
    monkeypatch.setattr(speed, "_has_compiler", lambda: False)
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler. Try: apt install g\+\+"):
        SpeedSettings(compile=True)

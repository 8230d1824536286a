"""Earth-Adapter: frequencies split without loss, class tokens untouched, any grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geospatial.crossearth_sar.earth_adapter import (
    BlockAdapter,
    EarthAdapter,
    EarthAdapterSettings,
    low_pass_mask,
    split_frequencies,
    split_frequencies_reference,
)
from mmzoo.errors import InputError

SIDES = st.integers(1, 40)


@given(height=SIDES, width=SIDES, share=st.sampled_from([0.1, 0.3, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_low_and_high_are_the_input_and_equal_the_published_way(height, width, share):
    maps = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height * 41 + width))
    low, high = split_frequencies(maps, share)
    torch.testing.assert_close(low + high, maps, atol=1e-5, rtol=0)
    for ours, theirs in zip((low, high), split_frequencies_reference(maps, share), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_published_size_has_a_window_of_8_x_8():
    """rho 0.3 on 32 x 32: r = 4. Half of frequency -4 stands at +4, hence 7 whole rows and two halves."""
    mask = low_pass_mask(32, 32, 0.3)
    assert mask.shape == (32, 17)
    along = mask[:, 0]
    assert along.sum() == 8
    assert along[[0, 1, 2, 3, -1, -2, -3]].eq(1).all()
    assert along[4] == along[-4] == 0.5


@pytest.mark.parametrize(("wave", "is_low"), [(0, True), (2, True), (3, True), (6, False), (15, False)])
def test_a_wave_goes_where_it_belongs(wave, is_low):
    x = torch.arange(32) / 32 * 2 * torch.pi * wave
    maps = x.cos().expand(1, 1, 32, 32).contiguous()
    low, high = split_frequencies(maps, 0.3)
    kept, lost = (low, high) if is_low else (high, low)
    torch.testing.assert_close(kept, maps, atol=1e-5, rtol=0)
    assert lost.abs().max() < 1e-5


def test_the_correction_is_the_formula():
    torch.manual_seed(0)
    part = BlockAdapter(6, EarthAdapterSettings(width=4), frequency=True)
    tokens = torch.randn(2, 1 + 20, 6)
    patches = tokens[:, 1:]
    maps = patches.transpose(1, 2).reshape(2, 6, 4, 5)
    low, high = (part_.flatten(2).transpose(1, 2) for part_ in split_frequencies_reference(maps, 0.3))
    share = torch.softmax(patches @ part.router.weight.T + part.router.bias, -1).unbind(-1)
    mixed = sum(
        s[..., None] * m for s, m in zip(share, (part.spatial(patches), part.low(low), part.high(high)), strict=True)
    )
    out = part(tokens, (4, 5))
    torch.testing.assert_close(out[:, 1:], patches + 0.1 * mixed, atol=1e-5, rtol=1e-5)
    assert torch.equal(out[:, :1], tokens[:, :1])


def test_other_blocks_have_the_spatial_bottleneck_only():
    adapter = EarthAdapter(8, depth=3, settings=EarthAdapterSettings(width=2, frequency_blocks=1))
    names = {name.split(".")[1] + "." + name.split(".")[2] for name, _ in adapter.named_parameters()}
    assert names == {
        "0.scale",
        "0.spatial",
        "0.low",
        "0.high",
        "0.router",
        "1.scale",
        "1.spatial",
        "2.scale",
        "2.spatial",
    }
    tokens = torch.randn(1, 7, 8)
    torch.testing.assert_close(
        adapter(tokens, 2, (2, 3))[:, 1:], (tokens + 0.1 * adapter.blocks[2].spatial(tokens))[:, 1:]
    )


def test_the_published_width_has_so_many_parameters():
    """C = 1024, d = 64: one bottleneck 132,160; router 3,075; scale 1. 24 blocks, 6 with frequencies."""
    with torch.device("meta"):
        adapter = EarthAdapter(1024, 24, EarthAdapterSettings())
    assert sum(p.numel() for p in adapter.parameters()) == 24 * (132_160 + 1) + 6 * (2 * 132_160 + 3_075)


def test_started_at_zero_it_changes_nothing_and_still_learns():
    adapter = EarthAdapter(8, 2, EarthAdapterSettings(width=4, start_at_zero=True))
    adapter.reset_parameters()
    tokens = torch.randn(2, 10, 8)
    out = adapter(tokens, 0, (3, 3))
    assert torch.equal(out, tokens)
    out.square().sum().backward()
    assert adapter.blocks[0].spatial[-1].weight.grad.abs().sum() > 0
    published = EarthAdapter(8, 2, EarthAdapterSettings(width=4))
    published.reset_parameters()
    assert not torch.equal(published(tokens, 0, (3, 3)), tokens)


@pytest.mark.parametrize(
    ("given_", "reason"),
    [({"widht": 3}, "Did you mean 'width'"), ({"low_share": 0.0}, r"in \(0, 1\]"), ({"width": 0}, "are wrong")],
)
def test_settings_that_are_none(given_, reason):
    with pytest.raises(InputError, match=reason):
        EarthAdapterSettings.of(given_)

"""The three descriptors against their closed forms (spec section 5), their definition, and damaged images."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import exp1, polygamma

from geospatial.sar.descriptor_statistics import DescriptorStatistics
from geospatial.sar.descriptors import DescriptorSettings, descriptor_statistics, descriptors_of, physical_descriptors
from geospatial.sar.descriptors_reference import reference
from mmzoo.errors import InputError

LN_K = math.log(16)


def image(values) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)[None, None]


def speckle(looks: float, mean: float = 1.0, size: int = 512, seed: int = 0) -> torch.Tensor:
    return image(np.random.default_rng(seed).gamma(looks, mean / looks, (size, size)))


def entropy(values, **options) -> float:
    return physical_descriptors(image(values), "intensity", settings=DescriptorSettings(**options))[0, 0].item()


@pytest.mark.parametrize("looks", [1, 4, 10, 100])
def test_speckle_has_its_looks_in_every_physical_domain(looks):
    power = speckle(looks, mean=0.07)
    found = [
        physical_descriptors(values, domain)[0]
        for values, domain in ((power, "intensity"), (power.sqrt(), "amplitude"), (10 * power.log10(), "db"))
    ]
    allowed = 5 * math.sqrt(2 * looks * (looks + 1)) / 512
    assert found[0][1].item() == pytest.approx(looks, abs=allowed)
    assert 0.9996 < found[0][0].item() / LN_K <= 1
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=2e-4, atol=0)


@pytest.mark.parametrize(
    ("mean", "looks", "expected"),
    [(0.01, 1, 1.0196), (1, 1, 2.0172), (100, 1, 11.928), (0.1, 4, 4.4757), (1, 4, 7.7498), (100, 4, 73.190)],
)
def test_the_papers_domain_has_the_tabled_ratio(mean, looks, expected):
    found = physical_descriptors(speckle(looks, mean), "log1p")[0, 1].item()
    assert found == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("mean", [1.0, 100.0])
def test_the_mean_of_the_papers_domain(mean):
    found = descriptor_statistics(speckle(1, mean), "log1p").mean.item()
    assert found == pytest.approx(math.exp(1 / mean) * exp1(1 / mean), rel=0.01)


def test_display_values_are_the_papers_domain_over_255():
    picture = torch.randint(0, 256, (2, 1, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        physical_descriptors(picture, "display8"), physical_descriptors(picture / 255, "log1p"), rtol=1e-5, atol=1e-9
    )


def test_signed_parts_of_a_complex_image_have_their_tabled_ratio():
    real = torch.randn(1, 1, 512, 512, generator=torch.Generator().manual_seed(0))
    assert physical_descriptors(real.abs(), "amplitude")[0, 1].item() == pytest.approx(0.5, abs=0.01)  # x^2
    assert physical_descriptors(real.abs(), "intensity")[0, 1].item() == pytest.approx(2 / (math.pi - 2), abs=0.02)
    torch.testing.assert_close(physical_descriptors(real, "log1p"), physical_descriptors(real.abs(), "log1p"))


def test_entropy_of_lines_and_edges():
    ramp = np.add.outer(0.3 * np.arange(40), np.arange(40))
    step = np.where(np.arange(40) < 20, 1.0, 3.0) * np.ones((40, 1))
    bar = np.where((np.arange(40) > 12) & (np.arange(40) < 25), 3.0, 1.0) * np.ones((40, 1))
    assert entropy(np.full((40, 40), 7.3)) == 0
    assert entropy(ramp) == 0
    assert entropy(step) == 0
    for bars in (bar, bar.T):
        assert entropy(bars) == pytest.approx(math.log(2), abs=1e-6)
        assert entropy(bars, period="orientation") == 0


def test_entropy_of_stripes_survives_rounding():
    stripes = np.sin(np.arange(64) * 2 * np.pi / 16) * np.ones((64, 1)) + 1.1
    assert entropy(stripes) == pytest.approx(math.log(2), abs=0.02)


def test_entropy_of_four_equal_axes():
    bar = np.where((np.arange(40) > 12) & (np.arange(40) < 25), 3.0, 1.0) * np.ones((40, 1))
    both = torch.cat((image(bar), image(bar.T)))
    found = physical_descriptors(both, "intensity", scope="scene")
    assert found[:, 0].tolist() == pytest.approx([math.log(4)] * 2, abs=1e-6)
    square = np.pad(np.ones((200, 200)), 20) + 0.5
    assert math.log(4) < entropy(square) < 1.53  # a little more, from its corners


def test_entropy_of_a_bowl_is_ln_k():
    y, x = np.mgrid[-300:301, -300:301]
    bowl, inside = (x**2 + y**2) / 1e5, torch.as_tensor(x**2 + y**2 <= 298**2)[None]
    found = physical_descriptors(image(bowl), "intensity", inside)[0, 0].item()
    assert found == pytest.approx(LN_K, abs=2e-5)


@pytest.mark.parametrize(("ratio", "expected"), [(1, 2.772589), (2, 2.661839), (4, 2.375166)])
def test_entropy_of_an_uneven_field(ratio, expected):
    """The tabled values are of bins whose edges lie on the axes; centred ones see a sharper peak, by the integral."""
    random = np.random.default_rng(1)
    field = ratio * random.standard_normal((16, 1, 1, 512)) + random.standard_normal((16, 1, 512, 1)) + 30
    angle = (np.arange(16 * 4096) + 0.5) / (16 * 4096) * 2 * np.pi - np.pi / 16
    density = 1 / ((np.cos(angle) / ratio) ** 2 + np.sin(angle) ** 2)
    centred = density.reshape(16, -1).sum(1) / density.sum()
    edged = np.roll(density, -2048).reshape(16, -1).sum(1) / density.sum()
    assert -(edged * np.log(edged)).sum() == pytest.approx(expected, abs=1e-5)
    found = physical_descriptors(torch.as_tensor(field), "intensity", scope="scene")[0, 0].item()
    assert found == pytest.approx(-(centred * np.log(centred)).sum(), abs=0.01)


def test_entropy_is_low_by_miller_and_madow():
    tiles = speckle(1, size=1024).unfold(2, 34, 34).unfold(3, 34, 34).reshape(-1, 1, 34, 34)
    found = physical_descriptors(tiles, "intensity")[:, 0].mean().item()
    assert LN_K - found == pytest.approx(15 / (2 * 32**2), rel=0.25)


def test_roughness_of_speckle_and_of_a_checkerboard():
    for block in (8, 16, 32):
        options = DescriptorSettings(block=block)
        found = physical_descriptors(speckle(1, mean=3), "intensity", settings=options)[0, 2].item()
        tiles = (512 // block) ** 2
        assert found == pytest.approx(9 / block**2, rel=5 * math.sqrt(2 / (tiles - 1)))
    board = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((16, 16))) * 2 + 1
    assert physical_descriptors(image(board), "intensity")[0, 2].item() == pytest.approx(1, rel=1e-6)


def test_variance_is_between_blocks_plus_within():
    values = speckle(2, size=64).double()
    statistics = descriptor_statistics(values.float(), "intensity")
    blocks = values[0, 0].unfold(0, 16, 16).unfold(1, 16, 16).reshape(16, -1)
    within = blocks.var(1, correction=0).mean().item()
    variance = (statistics.squares / statistics.count).item()
    assert variance == pytest.approx(statistics.roughness().item() + within, rel=1e-6)


def test_scale_and_order():
    power = speckle(3, size=96)
    base = physical_descriptors(power, "intensity")[0]
    scaled = physical_descriptors(power * 8, "intensity")[0]
    torch.testing.assert_close(scaled, base * torch.tensor([1.0, 1.0, 64.0]))
    shifted = physical_descriptors(power + 2, "intensity")[0]
    torch.testing.assert_close(shifted[[0, 2]], base[[0, 2]], rtol=1e-4, atol=0)
    assert shifted[1] > 3 * base[1]
    order = torch.randperm(96 * 96, generator=torch.Generator().manual_seed(0))
    shuffled = physical_descriptors(power.flatten()[order].view_as(power), "intensity")[0]
    torch.testing.assert_close(shuffled[1], base[1])


def test_turns_and_flips_keep_all_three():
    power = speckle(1, size=80)
    base = physical_descriptors(power, "intensity")
    for turned in (power.rot90(1, (2, 3)), power.flip(2), power.flip(3), power.mT):
        torch.testing.assert_close(physical_descriptors(turned.contiguous(), "intensity"), base, rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["direction", "orientation"]),
    st.sampled_from(["one", "magnitude"]),
    st.floats(0, 0.6),
    st.integers(0, 10**6),
)
def test_equal_to_the_definition(height, width, period, weight, hole, seed):
    random = np.random.default_rng(seed)
    values = random.gamma(2, 1, (height, width)).astype(np.float32)
    usable = random.random((height, width)) >= hole
    options = DescriptorSettings(bins=8, period=period, weight=weight, block=4)
    damaged = image(np.where(usable, values, np.nan))
    expected = reference(values.astype(np.float64), usable, options)
    found = physical_descriptors(damaged, "intensity", settings=options)[0]
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)
    by_mask = physical_descriptors(image(values), "intensity", torch.as_tensor(usable)[None], settings=options)[0]
    np.testing.assert_array_equal(found, by_mask)


def test_accurate_on_bright_targets():
    """A flat bright roof fills the image: E[x^2] - E[x]^2 in float32 would find a variance of rounding noise."""
    values = np.random.default_rng(0).normal(1000, 0.5, (64, 64)).astype(np.float32)
    values[5, 5] = 1100
    expected = reference(values.astype(np.float64), np.ones((64, 64), bool), DescriptorSettings(enl_max=1e9))
    found = physical_descriptors(image(values), "intensity", settings=DescriptorSettings(enl_max=1e9))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_one_corner_reflector_does_not_silence_the_scene():
    power = speckle(1, mean=0.003)
    bright = power.clone()
    bright[0, 0, 100, 100] = 1e5
    before, after = (physical_descriptors(values, "intensity")[0, 0] for values in (power, bright))
    assert after.item() == pytest.approx(before.item(), abs=1e-3)


def test_invalid_pixels_do_not_count():
    power = speckle(4, size=128)
    for filling in (float("nan"), float("inf"), -9999.0):
        damaged = power.clone()
        damaged[..., :40] = filling
        mask = torch.ones(1, 1, 128, 128, dtype=torch.bool)
        mask[..., :40] = False
        found = physical_descriptors(damaged, "intensity", mask)
        cropped = physical_descriptors(power[..., 40:].contiguous(), "intensity", settings=DescriptorSettings(block=8))
        aligned = physical_descriptors(damaged, "intensity", mask, settings=DescriptorSettings(block=8))
        torch.testing.assert_close(aligned, cropped, rtol=1e-5, atol=0)
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("domain", ["log1p", "intensity", "amplitude", "db", "display8"])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (17, 3), (32, 32)])
def test_images_without_anything_valid_are_neutral(domain, size):
    nothing = torch.full((2, 1, *size), float("nan"))
    assert physical_descriptors(nothing, domain).tolist() == [[0, 1, 0]] * 2
    flat = physical_descriptors(torch.full((1, 1, *size), 0.5), domain) if domain not in ("db", "display8") else None
    if flat is not None and size != (1, 1):
        assert flat.tolist() == [[0, 10000, 0]]


def test_tiles_pool_to_their_scene():
    scene = speckle(2, size=128) * image(np.linspace(1, 5, 128) * np.ones((128, 1)))
    tiles = scene.unfold(2, 32, 32).unfold(3, 32, 32).reshape(16, 1, 32, 32)
    whole = physical_descriptors(scene, "intensity")
    pooled = physical_descriptors(tiles, "intensity", scope="scene")
    assert torch.equal(pooled, pooled[:1].expand(16, 3))
    torch.testing.assert_close(pooled[:1, 1:], whole[:, 1:], rtol=1e-5, atol=0)
    assert pooled[0, 0].item() == pytest.approx(whole[0, 0].item(), abs=5e-3)
    parts = [descriptor_statistics(tile[None], "intensity") for tile in tiles]
    streamed = descriptors_of(DescriptorStatistics.concatenated(parts).pooled())
    torch.testing.assert_close(streamed, pooled[:1])


def test_scaled_for_a_router():
    power = speckle(4)
    raw = physical_descriptors(power, "intensity")[0].tolist()
    scaled = physical_descriptors(power, "intensity", settings=DescriptorSettings(scaling="log"))[0].tolist()
    mean = power.mean().item()
    assert scaled == pytest.approx([raw[0] / LN_K, math.log1p(raw[1]), math.log1p(raw[2] / mean**2)], rel=1e-4)
    nothing = physical_descriptors(
        torch.full((1, 1, 9, 9), 0.0), "intensity", settings=DescriptorSettings(scaling="log")
    )
    assert torch.isfinite(nothing).all()


def test_bands_are_named():
    bands = torch.cat([speckle(looks, size=64) for looks in range(1, 14)], 1)
    assert bands.shape[1] == 13
    with pytest.raises(InputError, match=r"13 bands .* band=0 to 12"):
        physical_descriptors(bands, "intensity")
    with pytest.raises(InputError, match="no band 13"):
        physical_descriptors(bands, "intensity", band=13)
    one = physical_descriptors(bands[:, 4:5], "intensity")
    assert torch.equal(physical_descriptors(bands, "intensity", band=4), one)
    span = physical_descriptors(bands, "intensity", band="mean")
    torch.testing.assert_close(span, physical_descriptors(bands.mean(1, keepdim=True), "intensity"))
    bands[0, 7, 3, 3] = float("nan")
    assert torch.equal(physical_descriptors(bands, "intensity", band=4), one)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(1, 1, 8, 8, dtype=torch.complex64), "amplitude"), "complex"),
        ((torch.ones(8, 8), "amplitude"), r"\(B, C, H, W\)"),
        ((torch.ones(1, 1, 8, 8), "amplitud"), "Did you mean 'amplitude'"),
        ((torch.ones(1, 1, 8, 8), "intensity", torch.ones(1, 8, 9, dtype=torch.bool)), "valid mask"),
        ((torch.ones(1, 1, 8, 8), "intensity", torch.ones(1, 8, 8)), "boolean"),
        ((torch.ones(1, 1, 8, 8), "intensity", None, "sene"), "Did you mean 'scene'"),
        ((torch.full((1, 1, 8, 8), -12.0), "amplitude"), "domain db"),
    ],
)
def test_wrong_images_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        physical_descriptors(*arguments)


def test_wrong_settings_are_refused():
    for wrong in ({"bins": 1}, {"block": 0}, {"tau": -1.0}, {"enl_max": 0.0}):
        with pytest.raises(InputError, match="bins >= 2"):
            DescriptorSettings(**wrong)
    with pytest.raises(InputError, match="Did you mean 'orientation'"):
        DescriptorSettings(period="orientations")


def test_autocast_and_half_precision_images_change_nothing():
    power = speckle(4, size=64)
    with torch.autocast("cpu", torch.bfloat16):
        inside = physical_descriptors(power, "intensity")
    assert inside.dtype == torch.float32
    assert torch.equal(inside, physical_descriptors(power, "intensity"))
    half = power.bfloat16()
    assert torch.equal(physical_descriptors(half, "intensity"), physical_descriptors(half.float(), "intensity"))


def test_no_value_is_read_by_the_host():
    """On the meta device every copy to the host raises."""
    found = physical_descriptors(torch.empty(3, 1, 64, 64, device="meta"), "intensity")
    assert found.shape == (3, 3)
    assert found.device.type == "meta"


def test_variance_of_logarithms_is_the_trigamma():
    power = speckle(4)
    assert (10 * power.log10()).std().item() == pytest.approx(10 / math.log(10) * math.sqrt(polygamma(1, 4)), rel=0.01)

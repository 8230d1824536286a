"""Speckle filters: equal to their definitions, true to speckle theory, and deaf to invalid pixels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geospatial.sar.domains import from_power, to_power
from geospatial.sar.speckle import METHODS, SpeckleFilter, despeckle
from geospatial.sar.speckle_reference import reference
from mmzoo.errors import InputError


def speckle(looks, size, seed=0, mean=1.0):
    return torch.as_tensor(np.random.default_rng(seed).gamma(looks, mean / looks, size))


def scene(seed=0, size=(26, 33), looks=3.0):
    """Two fields, a bright target and a slope, under speckle."""
    power = speckle(looks, size, seed)
    power[:, size[1] // 2 :] *= 8
    power[size[0] // 2 :] *= torch.linspace(1, 4, size[1], dtype=torch.float64)
    power[5, 5] = 300
    return power


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("looks", [1.0, 4.4])
def test_equal_to_the_definition(method, looks):
    power = scene(looks=looks)
    usable = torch.rand(power.shape, generator=torch.Generator().manual_seed(0)) > 0.15
    usable[:6, -8:] = False
    expected = reference(power.numpy(), usable.numpy(), method, looks)
    found = despeckle(power, "intensity", SpeckleFilter(method, looks), usable)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    single = despeckle(power.float(), "intensity", SpeckleFilter(method, looks), usable)
    far = np.abs(single.numpy() / expected - 1) > 2e-3
    assert far.mean() < 0.005  # a threshold or a side of an edge may fall the other way in float32


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(METHODS),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([1, 3, 7, 9]),
    st.floats(0.5, 20),
    st.floats(0, 1),
    st.integers(0, 10**6),
)
def test_equal_to_the_definition_on_any_image(method, height, width, window, looks, hole, seed):
    random = np.random.default_rng(seed)
    power = random.gamma(1, 1, (height, width)) * (1 + 5 * (random.random((height, width)) < 0.1))
    usable = random.random((height, width)) >= hole
    window = 7 if method == "refined_lee" else window
    expected = reference(power, usable, method, looks, window, 2.0)
    found = despeckle(
        torch.as_tensor(power), "intensity", SpeckleFilter(method, looks, window, 2.0), torch.as_tensor(usable)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_flat_stays_flat(method):
    flat = torch.full((20, 20), 0.37)
    rounding = 5e-7 if method in ("frost", "refined_lee") else 0  # these two add up the window pixel by pixel
    torch.testing.assert_close(despeckle(flat, "intensity", SpeckleFilter(method, 1)), flat, rtol=rounding, atol=0)
    zero = torch.zeros(20, 20)
    assert torch.equal(despeckle(zero, "intensity", SpeckleFilter(method, 1)), zero)


def looks_of(power):
    return (power.mean() ** 2 / power.var()).item()


@pytest.mark.parametrize(("method", "gain"), [("lee", 15), ("enhanced_lee", 15), ("frost", 12)])
@pytest.mark.parametrize("looks", [1, 4])
def test_speckle_falls_and_the_mean_stays(method, gain, looks):
    power = speckle(looks, (300, 300))
    calm = despeckle(power, "intensity", SpeckleFilter(method, looks))
    assert calm.mean().item() == pytest.approx(power.mean().item(), rel=0.01)
    assert looks_of(calm) > gain * looks


@pytest.mark.parametrize(("method", "low"), [("refined_lee", (0.015, 0.004)), ("gamma_map", (0.037, 0.014))])
def test_two_filters_are_low_by_a_known_share(method, low):
    """One takes the half that looks most like the pixel, the other the mode of a skew distribution."""
    for looks, share in zip((1, 4), low, strict=True):
        power = speckle(looks, (400, 400))
        calm = despeckle(power, "intensity", SpeckleFilter(method, looks))
        assert (1 - calm.mean() / power.mean()).item() == pytest.approx(share, abs=0.2 * share + 0.001)
        assert looks_of(calm) > 12 * looks


def test_boxcar_multiplies_the_looks_by_its_pixels():
    power = speckle(2, (800, 800))
    calm = despeckle(power, "intensity", SpeckleFilter("boxcar", 2, 5))
    assert looks_of(calm) == pytest.approx(50, rel=0.05)
    assert calm.mean().item() == pytest.approx(1, rel=0.01)


def test_edges_stay_where_the_boxcar_smears_them():
    truth = torch.ones(120, 120, dtype=torch.float64)
    truth[:, 60:] = 10
    power = truth * speckle(4, (120, 120))
    near = slice(58, 62)
    errors = {
        method: (despeckle(power, "intensity", SpeckleFilter(method, 4)) / truth)[:, near].log().square().mean().item()
        for method in METHODS
    }
    assert errors["refined_lee"] < 0.35 * errors["boxcar"]
    assert max(error for method, error in errors.items() if method != "boxcar") < errors["boxcar"]


@pytest.mark.parametrize("method", ["lee", "enhanced_lee", "gamma_map"])
def test_point_targets_survive(method):
    power = speckle(4, (41, 41), mean=0.05)
    power[20, 20] = 100
    assert despeckle(power, "intensity", SpeckleFilter(method, 4))[20, 20].item() == pytest.approx(100, rel=0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("nodata", [math.nan, math.inf, -9999.0])
def test_invalid_pixels_stay_and_do_not_spread(method, nodata):
    power = scene(1).float()
    usable = torch.ones(power.shape, dtype=torch.bool)
    usable[8:12, 10:15] = False
    power[~usable] = nodata
    found = despeckle(power, "intensity", SpeckleFilter(method, 3), usable)
    torch.testing.assert_close(found[~usable], power[~usable], equal_nan=True)
    assert torch.isfinite(found[usable]).all()
    assert (found[usable] > 0).all()
    power[~usable] = 12345.0
    again = despeckle(power, "intensity", SpeckleFilter(method, 3), usable)
    torch.testing.assert_close(again[usable], found[usable], rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_every_domain_is_filtered_in_power(method):
    power = scene(2, looks=4)
    filter = SpeckleFilter(method, 4)
    valid = torch.rand(power.shape, generator=torch.Generator().manual_seed(0)) > 0.2
    expected = despeckle(power, "intensity", filter, valid)
    for domain in ("amplitude", "db"):
        found = despeckle(from_power(power, domain), domain, filter, valid)
        torch.testing.assert_close(to_power(found, domain), expected)


def test_batches_and_layouts_are_filtered_image_by_image():
    images = torch.stack([scene(seed) for seed in range(6)]).view(2, 3, 26, 33)
    for method in METHODS:
        filter = SpeckleFilter(method, 3)
        found = despeckle(images, "intensity", filter)
        torch.testing.assert_close(found[1, 2], despeckle(images[1, 2].clone(), "intensity", filter))
        torch.testing.assert_close(despeckle(images.mT, "intensity", filter).mT.shape, found.shape)


def test_looks_are_estimated_when_asked_for():
    power = speckle(4.4, (150, 150))
    estimated = despeckle(power, "intensity", SpeckleFilter("lee", "estimate"))
    known = despeckle(power, "intensity", SpeckleFilter("lee", 4.4))
    assert looks_of(estimated) == pytest.approx(looks_of(known), rel=0.25)
    with pytest.raises(InputError, match="Give the looks"):
        despeckle(torch.ones(30, 30), "intensity", SpeckleFilter("lee", "estimate"))


def test_images_without_valid_pixels_come_back():
    nothing = torch.full((9, 9), math.nan)
    for method in METHODS:
        assert torch.isnan(despeckle(nothing, "db", SpeckleFilter(method, "estimate"))).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpeckleFilter("leee", 1), "Did you mean 'lee'"),
        (lambda: SpeckleFilter("lee", 0), "number of looks"),
        (lambda: SpeckleFilter("lee", "guess"), "number of looks"),
        (lambda: SpeckleFilter("lee", 1, 6), "odd number"),
        (lambda: SpeckleFilter("lee", 1, damping=0), "damping"),
        (lambda: SpeckleFilter("refined_lee", 1, 9), "window of 7"),
        (lambda: despeckle(torch.full((9, 9), -12.0), "amplitude", SpeckleFilter("lee", 1)), "domain db"),
        (lambda: despeckle(torch.ones(9, 9), "display8", SpeckleFilter("lee", 1)), "display8"),
        (lambda: despeckle(torch.ones(9, 9, dtype=torch.complex64), "amplitude", SpeckleFilter("lee", 1)), "complex"),
    ],
)
def test_wrong_requests_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()

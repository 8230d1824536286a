"""Descriptor maps against scipy's generic_filter and against the image's own descriptors."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import generic_filter

from geospatial.sar.descriptors import DescriptorSettings, physical_descriptors
from geospatial.sar.local_descriptors import local_descriptors, local_looks
from mmzoo.errors import InputError


def speckle(looks, size, seed=0):
    return torch.as_tensor(np.random.default_rng(seed).gamma(looks, 1 / looks, size)).float()[None, None]


def test_looks_are_those_of_a_generic_filter():
    power = speckle(2, (40, 50))
    found = local_descriptors(power, "intensity", 7)[0, 1, 3:-3, 3:-3]

    def ratio(pixels):
        return pixels.mean() ** 2 / pixels.var()

    expected = generic_filter(power[0, 0].double().numpy(), ratio, 7)[3:-3, 3:-3]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_middle_of_an_odd_image_sees_the_whole_image():
    power = speckle(1, (31, 31))
    found = local_descriptors(power, "intensity", 31)[0, :, 15, 15]
    whole = physical_descriptors(power, "intensity", settings=DescriptorSettings())[0]
    torch.testing.assert_close(found[:2], whole[:2])
    means = power[0, 0].unfold(0, 3, 1).unfold(1, 3, 1).mean((2, 3))
    inner = local_descriptors(power, "intensity", 29, valid=None)[0, 2, 15, 15]
    assert inner.item() == pytest.approx(means.var(correction=0).item(), rel=1e-4)


def test_speckle_and_edges_show_on_the_maps():
    power = speckle(4, (200, 200))
    power[..., 100:] *= 50
    entropy, looks, roughness = local_descriptors(power, "intensity", 31)[0]
    assert looks[20:-20, 20:80].mean().item() == pytest.approx(4, rel=0.1)
    assert looks[20:-20, 100].max() < 2
    assert entropy[20:-20, 20:80].mean().item() == pytest.approx(math.log(16), abs=0.03)
    assert roughness[20:-20, 100].min() > 3 * roughness[20:-20, 20:80].max()
    stripes = torch.sin(torch.arange(80) * 2 * math.pi / 16).expand(1, 1, 80, 80) + 1.1
    assert local_descriptors(stripes, "intensity", 31)[0, 0, 40, 40].item() == pytest.approx(math.log(2), abs=0.02)


def test_invalid_pixels_do_not_count():
    power = speckle(4, (60, 60))
    damaged = power.clone()
    damaged[..., :20] = math.nan
    found = local_descriptors(damaged, "intensity", 9)
    assert torch.isnan(found[..., :20]).all()
    assert torch.isfinite(found[..., 20:]).all()
    cropped = local_descriptors(power[..., 20:].contiguous(), "intensity", 9)
    torch.testing.assert_close(found[..., 20:], cropped, rtol=1e-4, atol=1e-6)
    assert torch.isnan(local_descriptors(torch.full((1, 1, 5, 5), math.nan), "db", 3)).all()


def test_tiny_and_flat_images():
    for size in ((1, 1), (2, 5), (9, 9)):
        found = local_descriptors(torch.ones(1, 1, *size), "intensity", 3)
        assert bool((found[:, 0] == 0).all() and (found[:, 2] == 0).all())
    assert bool((local_looks(torch.ones(1, 9, 9), torch.ones(1, 9, 9, dtype=torch.bool), 3) == 1e4).all())


def test_wrong_windows_are_refused():
    power = speckle(1, (9, 9))
    for arguments, message in (((6, 3), "odd"), ((7, 2), "odd"), ((3, 5), "does not fit")):
        with pytest.raises(InputError, match=message):
            local_descriptors(power, "intensity", *arguments)

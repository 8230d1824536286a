"""Numbers of looks: the closed forms of speckle theory, the estimators and their tabled accuracy."""

import math

import numpy as np
import pytest
import torch

from geospatial.sar.looks import (
    amplitude_mean,
    amplitude_ratio,
    decibel_bias,
    decibel_deviation,
    estimate_looks,
    inverse_trigamma,
    looks_from_amplitude_ratio,
    looks_of_mean,
    looks_of_variation,
    scene_looks,
    trace_moment_looks,
)
from geospatial.sar.polarimetry import component
from geospatial.sar.windows import moving_moments
from mmzoo.errors import InputError

#: L, m, r_L, std of dB, bias of dB, trigamma (spec section 5.1)
TABLE = [
    (1, 0.886227, 3.65979, 5.5700, -2.5068, 1.644934),
    (4, 0.969311, 15.5462, 2.3137, -0.5654, 0.283823),
    (4.4, 0.972049, 17.1421, 2.1932, -0.5121, 0.255036),
    (10, 0.987583, 39.5187, 1.4084, -0.2208, 0.105166),
    (16, 0.992219, 63.5117, 1.1029, -0.1371, 0.064494),
    (100, 0.998751, 399.502, 0.4354, -0.0218, 0.010050),
]


def speckle(looks, size, seed=0, mean=1.0):
    return torch.as_tensor(np.random.default_rng(seed).gamma(looks, mean / looks, size))


@pytest.mark.parametrize(("looks", "mean", "ratio", "deviation", "bias", "trigamma"), TABLE)
def test_closed_forms(looks, mean, ratio, deviation, bias, trigamma):
    assert amplitude_mean(looks) == pytest.approx(mean, abs=6e-7)
    assert amplitude_ratio(looks) == pytest.approx(ratio, rel=2e-6)
    assert decibel_deviation(looks) == pytest.approx(deviation, abs=6e-5)
    assert decibel_bias(looks) == pytest.approx(bias, abs=6e-5)
    assert inverse_trigamma(trigamma) == pytest.approx(looks, rel=1e-4)


@pytest.mark.parametrize("looks", [0.5, 1, 3.3, 40, 100])
def test_inversions(looks):
    trigamma = torch.special.polygamma(1, torch.tensor(looks, dtype=torch.float64)).item()
    assert inverse_trigamma(trigamma) == pytest.approx(looks, rel=1e-12)
    assert looks_from_amplitude_ratio(amplitude_ratio(looks)) == pytest.approx(looks, rel=1e-9)


def test_amplitude_reads_four_times_too_many():
    assert amplitude_ratio(64) == pytest.approx(255.503, abs=1e-3)
    amplitude = speckle(4, 400_000).sqrt()
    found = (amplitude.mean() ** 2 / amplitude.var()).item()
    assert found == pytest.approx(amplitude_ratio(4), rel=0.01)
    assert looks_from_amplitude_ratio(found) == pytest.approx(4, rel=0.01)


def test_decibels_have_their_spread_and_bias():
    decibels = 10 * speckle(4, 400_000).log10()
    assert decibels.std().item() == pytest.approx(2.3137, rel=0.005)
    assert decibels.mean().item() == pytest.approx(-0.5654, abs=0.02)


@pytest.mark.parametrize(
    ("estimator", "spreads"),
    [
        ("moments", (2.00, 6.32, 14.83)),
        ("log_cumulant", (1.435, 5.670, 14.148)),
        ("maximum_likelihood", (1.245, 5.437, 13.913)),
    ],
)
def test_estimators_have_their_tabled_accuracy(estimator, spreads):
    for looks, spread in zip((1, 4, 10), spreads, strict=True):
        samples = speckle(looks, (300, 1024), seed=looks)
        found = np.array([estimate_looks(sample, estimator=estimator) for sample in samples])
        assert found.mean() == pytest.approx(looks, abs=5 * spread / math.sqrt(1024 * 300) + 0.01 * looks)
        assert found.std() * math.sqrt(1024) == pytest.approx(spread, rel=0.2)


def test_estimators_leave_out_what_is_invalid_and_need_variance():
    power = speckle(4, (64, 64))
    clean = estimate_looks(power[8:])
    for filling in (math.nan, math.inf, 0.0, -1.0):
        damaged = power.clone()
        damaged[:8] = filling
        assert estimate_looks(damaged) == clean
    valid = torch.ones(64, 64, dtype=torch.bool)
    valid[:8] = False
    assert estimate_looks(power, valid) == clean
    for flat in (torch.ones(9), torch.full((9,), math.nan)):
        with pytest.raises(InputError, match="valid pixels"):
            estimate_looks(flat)
    with pytest.raises(InputError, match="Did you mean 'moments'"):
        estimate_looks(power, estimator="moment")
    with pytest.raises(InputError, match="above 0"):
        looks_from_amplitude_ratio(0)


def test_scene_looks_see_speckle_between_the_fields():
    fields = torch.as_tensor(np.kron(np.random.default_rng(1).uniform(0.01, 1, (4, 4)), np.ones((64, 64))))
    power = speckle(4.4, (256, 256)) * fields
    variation = (fields.var(correction=0) / fields.mean() ** 2).item()
    whole = estimate_looks(power, estimator="moments")
    assert whole == pytest.approx(looks_of_variation(variation, 4.4), rel=0.03)
    assert scene_looks(power, 9) == pytest.approx(4.4, rel=0.1)
    power[:100] = math.nan
    assert scene_looks(power, 9) == pytest.approx(4.4, rel=0.1)
    with pytest.raises(InputError, match="no window"):
        scene_looks(torch.ones(30, 30), 9)


def test_complex_parts_have_their_tabled_ratio():
    random = torch.Generator().manual_seed(0)
    slc = torch.randn(400_000, dtype=torch.complex64, generator=random)
    for part, expected in (("intensity", 1.0), ("amplitude", 3.6598)):
        values = component(slc, part)
        assert (values.mean() ** 2 / values.var()).item() == pytest.approx(expected, rel=0.02)
    real = component(slc, "real")
    assert (real.mean() ** 2 / real.var()).item() < 1e-4
    assert (real.abs().mean() ** 2 / real.abs().var()).item() == pytest.approx(1.7519, rel=0.02)


@pytest.mark.parametrize(("window", "expected"), [(2, 2.0255), (4, 6.0188), (8, 20.205)])
def test_looks_of_correlated_pixels(window, expected):
    """Two times oversampled: the coherence between pixels is a product of sinc(distance / 2) along both axes."""
    distance = torch.arange(window)[:, None] - torch.arange(window)
    along = torch.sinc(distance / 2)
    assert looks_of_mean(torch.kron(along, along)) == pytest.approx(expected, rel=1e-4)


def test_looks_of_independent_pixels_add_up():
    assert looks_of_mean(torch.eye(9)) == 9


def test_trace_moment_of_wishart_matrices():
    random = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1, 0, 0], [0.3, 0.5, 0], [0.2j, 0.1, 0.8]], dtype=torch.complex128)
    vectors = torch.randn(20_000, 5, 3, dtype=torch.complex128, generator=random) @ mixing.T
    found = trace_moment_looks(torch.einsum("nli,nlj->nij", vectors, vectors.conj()) / 5)
    assert found == pytest.approx(5, rel=0.03)


def naive_moments(values, valid, window):
    half, result = window // 2, np.zeros((3, *values.shape))
    for row, column in np.ndindex(*values.shape):
        around = (slice(max(row - half, 0), row + half + 1), slice(max(column - half, 0), column + half + 1))
        pixels = values[around][valid[around]].astype(np.float64)
        if pixels.size:
            result[:, row, column] = pixels.size, pixels.mean(), pixels.var()
    return result


@pytest.mark.parametrize("window", [1, 3, 5, 7, 9, 25])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_moving_moments_are_exact_on_bright_windows(window, offset):
    random = np.random.default_rng(0)
    values = (random.gamma(2, 1, (23, 31)) + offset).astype(np.float32)
    valid = random.random((23, 31)) < 0.7
    valid[:9, :9] = False
    moments = moving_moments(torch.as_tensor(np.where(valid, values, np.nan)), window, torch.as_tensor(valid))
    count, mean, variance = naive_moments(values, valid, window)
    np.testing.assert_array_equal(moments.count, count)
    np.testing.assert_allclose(moments.mean, mean, rtol=2e-6)
    rounding = 2**-23 * (mean * np.sqrt(variance) + variance)  # of E[x^2] - E[x]^2: 2**-23 * mean**2, here all noise
    assert bool((np.abs(moments.variance().numpy() - variance) <= 8 * rounding).all())


def test_flat_windows_have_no_variance_at_all():
    moments = moving_moments(torch.full((20, 20), 1e5 / 3), 7)
    assert bool((moments.squares == 0).all())
    assert bool((moments.mean == moments.mean[0, 0]).all())


def test_windows_have_a_middle():
    for wrong in (0, 4, -3):
        with pytest.raises(InputError, match="odd number"):
            moving_moments(torch.ones(9, 9), wrong)

"""Scales and calibration: round trips, what happens to invalid pixels, and values in the wrong domain."""

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rasterio import Affine

from geospatial.sar.calibration import (
    beta0_to_sigma0,
    calibrated,
    gain_from_decibels,
    gamma0_to_sigma0,
    interpolated_table,
    sigma0_to_beta0,
    sigma0_to_gamma0,
    uncalibrated,
)
from geospatial.sar.domains import PHYSICAL, check_domain, convert, from_power, to_power, valid_pixels
from geospatial.sar.multilook import multilook, multilook_transform
from mmzoo.errors import InputError


@given(st.floats(1e-8, 1e8), st.sampled_from(PHYSICAL), st.sampled_from(PHYSICAL))
def test_domains_round_trip(power, first, second):
    values = from_power(torch.tensor([power], dtype=torch.float64), first)
    back = to_power(convert(values, first, second), second)
    assert back.item() == pytest.approx(power, rel=1e-10)


def test_known_conversions():
    assert to_power(torch.tensor([3, 0], dtype=torch.uint8), "amplitude").tolist() == [9, 0]
    assert to_power(torch.tensor([-10.0, 0, 20]), "db").tolist() == pytest.approx([0.1, 1, 100])
    assert convert(torch.tensor([10.0]), "amplitude", "db").item() == pytest.approx(20)


def test_impossible_power_becomes_nan_unless_there_is_a_floor():
    power = torch.tensor([-0.1, 0.0, 1.0, math.nan])
    decibels = from_power(power, "db")
    assert torch.isnan(decibels).tolist() == [True, True, False, True]
    assert torch.isnan(from_power(power, "amplitude")).tolist() == [True, False, False, True]
    floored = from_power(power, "db", floor=0.01)
    torch.testing.assert_close(floored, torch.tensor([-20.0, -20, 0, math.nan]), equal_nan=True)
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="noise floor"):
            from_power(power, "db", floor=wrong)


def test_scales_without_power_are_refused():
    for domain in ("log1p", "display8"):
        with pytest.raises(InputError, match=domain):
            to_power(torch.ones(2), domain)
        with pytest.raises(InputError, match=domain):
            from_power(torch.ones(2), domain)
    with pytest.raises(InputError, match="Did you mean 'intensity'"):
        to_power(torch.ones(2), "intensty")
    with pytest.raises(InputError, match="complex"):
        to_power(torch.ones(2, dtype=torch.complex64), "amplitude")


def test_valid_pixels_know_every_kind_of_nodata():
    values = torch.tensor([0.0, 1, math.nan, math.inf, -9999])
    assert valid_pixels(values).tolist() == [True, True, False, False, True]
    assert valid_pixels(values, math.nan).tolist() == [True, True, False, False, True]
    assert valid_pixels(values, 0).tolist() == [False, True, False, False, True]
    assert valid_pixels(values, -9999).tolist() == [True, True, False, False, False]
    assert valid_pixels(torch.tensor([complex(1, math.nan), 1 + 1j])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("values", "domain", "message"),
    [
        ([0.5, -0.001, 3], "amplitude", "33.33% of the pixels are negative"),
        ([-12.0, -20, -7], "intensity", "the mean is -13"),
        ([-2500.0, -1200], "db", "undo the scaling"),
        ([-9999.0, -12], "db", "mask the nodata value"),
        ([0.1, 1e36], "intensity", "reach 1e\\+36, beyond 1e\\+10"),
        ([0.1, 2e5], "amplitude", "beyond 100000"),
        ([0.1, -1e36], "log1p", "mask it: nodata"),
        ([0.0, 256], "display8", "not 0 to 255"),
        ([-1.0, 20], "display8", "not 0 to 255"),
    ],
)
def test_values_that_a_domain_cannot_hold_are_refused(values, domain, message):
    with pytest.raises(InputError, match=message):
        check_domain(torch.tensor(values), domain)


@pytest.mark.parametrize(
    ("values", "domain", "message"),
    [
        ([5.0, -0.1, 3], "intensity", "33% of the pixels are negative"),
        ([-12.0] * 19 + [1.0], "log1p", "in decibels"),
        ([3.0, 60], "db", "no value is below 0 dB"),
        ([0.1, 0.9], "display8", "already divided"),
    ],
)
def test_unlikely_values_are_warned_of(values, domain, message):
    with pytest.warns(UserWarning, match=message):
        check_domain(torch.tensor(values), domain)


@pytest.mark.parametrize(
    ("values", "domain"),
    [
        ([0.0, 3, math.nan], "amplitude"),
        ([0.0, 3, -math.inf], "intensity"),
        ([1.0] * 20 + [-0.1], "intensity"),
        ([-25.0, 3, -math.inf], "db"),
        ([0.0, 255], "display8"),
        ([0.0, 65535], "amplitude"),
        ([0.0, 65535.0**2], "intensity"),
        ([-1.0, 1], "log1p"),
        ([math.nan], "db"),
        ([], "amplitude"),
    ],
)
def test_likely_values_pass_in_silence(values, domain):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_domain(torch.tensor(values), domain)


def test_masked_values_are_not_judged():
    check_domain(torch.tensor([-9999.0, 3]), "amplitude", torch.tensor([False, True]))


def test_calibration_round_trips_and_keeps_nodata():
    counts = torch.tensor([[0, 100, 300], [5, 60, 65535]], dtype=torch.float64)
    gain, noise = torch.tensor([[400.0, 410, 420]], dtype=torch.float64), 16.0
    power = calibrated(counts, gain, nodata=0, noise=noise)
    assert torch.isnan(power).tolist() == [[True, False, False], [False] * 3]
    assert power[0, 1].item() == pytest.approx((100**2 - 16) / 410**2)
    torch.testing.assert_close(uncalibrated(power, gain, noise)[power.isfinite()], counts[power.isfinite()])
    assert calibrated(counts, gain, nodata=None, noise=noise)[0, 0] < 0  # noise only: unbiased, so kept
    assert math.isnan(uncalibrated(torch.tensor([-1.0]), 1.0).item())


def test_calibration_of_complex_counts_is_that_of_their_amplitude():
    slc = torch.tensor([3 + 4j, 0j, complex(math.nan, 1)])
    power = calibrated(slc, 10.0, nodata=0)
    torch.testing.assert_close(power, torch.tensor([0.25, math.nan, math.nan]), equal_nan=True)


def test_calibration_in_decibels():
    counts = torch.tensor([7000.0])
    decibels = from_power(calibrated(counts, gain_from_decibels(-83), None), "db").item()
    assert decibels == pytest.approx(20 * math.log10(7000) - 83, abs=1e-4)


def test_impossible_calibrations_are_refused():
    counts = torch.ones(2, 2)
    with pytest.raises(InputError, match="gain must be above 0"):
        calibrated(counts, torch.tensor([1.0, 0.0]), None)
    with pytest.raises(InputError, match="noise must be 0 or more"):
        calibrated(counts, 1.0, None, noise=-22.0)


def test_tables_are_interpolated_exactly_on_a_plane():
    lines, pixels = torch.tensor([-3.0, 10, 25]), torch.tensor([0.0, 7, 40])
    table = 2 * lines[:, None] + 3 * pixels + 5
    found = interpolated_table(lines, pixels, table, (20, 33))
    expected = 2 * torch.arange(20.0)[:, None] + 3 * torch.arange(33.0) + 5
    torch.testing.assert_close(found, expected.double())
    with pytest.raises(InputError, match="covers lines -3 to 25, the image has 0 to 29"):
        interpolated_table(lines, pixels, table, (30, 33))
    with pytest.raises(InputError, match="rise"):
        interpolated_table(lines.flip(0), pixels, table, (20, 33))
    with pytest.raises(InputError, match="the table is"):
        interpolated_table(lines, pixels, table.T[:2], (20, 33))


def test_angles():
    angle = torch.tensor([30.0, 45.0])
    sigma0 = torch.tensor([0.1, 0.2])
    assert beta0_to_sigma0(torch.tensor([1.0]), 30.0).item() == pytest.approx(0.5)
    assert sigma0_to_gamma0(torch.tensor([1.0]), 60.0).item() == pytest.approx(2)
    torch.testing.assert_close(beta0_to_sigma0(sigma0_to_beta0(sigma0, angle), angle), sigma0)
    torch.testing.assert_close(gamma0_to_sigma0(sigma0_to_gamma0(sigma0, angle), angle), sigma0)
    torch.testing.assert_close(
        sigma0_to_gamma0(sigma0, angle), sigma0_to_beta0(sigma0, angle) * torch.deg2rad(angle).tan()
    )
    for wrong in (0.0, 90.0, -9999.0, math.nan):
        with pytest.raises(InputError, match="between 0 and 90"):
            sigma0_to_gamma0(sigma0, wrong)


def speckle(looks, size, seed=0):
    gamma = torch.distributions.Gamma(torch.tensor(float(looks)), float(looks))
    torch.manual_seed(seed)
    return gamma.sample(size)


def test_multilooking_multiplies_the_looks_and_keeps_the_mean():
    power = speckle(2, (1, 512, 512))
    calm = multilook(power, 4, 2, "intensity")
    assert calm.shape == (1, 128, 256)
    assert (calm.mean() ** 2 / calm.var()).item() == pytest.approx(16, rel=0.05)
    torch.testing.assert_close(calm.mean(), power.mean())
    for domain in ("amplitude", "db"):
        other = multilook(from_power(power, domain), 4, 2, domain)
        torch.testing.assert_close(to_power(other, domain), calm, rtol=1e-4, atol=0)


def test_multilooking_masks_and_crops():
    power = torch.arange(35.0).reshape(5, 7)
    power[0, 0] = math.nan
    power[2:4, 2:4] = torch.tensor([[math.nan, math.nan], [math.nan, 8]])
    calm = multilook(power, 2, 2, "intensity")
    assert calm.shape == (2, 3)
    assert calm[0, 0].item() == pytest.approx((1 + 7 + 8) / 3)
    assert torch.isnan(calm).sum() == 1
    assert torch.isnan(calm[1, 1])
    valid = torch.ones(5, 7, dtype=torch.bool)
    valid[:, 4:] = False
    assert torch.isnan(multilook(power, 2, 2, "intensity", valid)[:, 2]).all()
    for rows, columns in ((0, 1), (6, 1), (1, 8)):
        with pytest.raises(InputError, match="do not fit"):
            multilook(power, rows, columns, "intensity")


def test_multilooked_pixels_are_larger_on_the_ground():
    transform = multilook_transform(Affine(10, 0, 500_000, 0, -10, 4_000_000), 2, 4)
    assert transform == Affine(40, 0, 500_000, 0, -20, 4_000_000)
    skewed = multilook_transform(Affine(1, 2, 3, 4, 5, 6), 10, 100)
    assert skewed[:6] == (100, 20, 3, 400, 50, 6)  # x = a column + b row + c

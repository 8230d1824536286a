"""Several polarisations: known scatterers, conserved power, and invalid pixels that stay where they are."""

import math

import pytest
import torch

from geospatial.sar.polarimetry import (
    coherency,
    component,
    covariance,
    dual_composite,
    pauli,
    pauli_of_covariance,
    span,
    span_of_covariance,
)
from mmzoo.errors import InputError


def channels(size=(24, 30), seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(size, dtype=torch.complex128, generator=random) for _ in range(3)]


def test_known_scatterers_have_their_colour():
    one, none = torch.ones(1, 1, dtype=torch.complex64), torch.zeros(1, 1, dtype=torch.complex64)
    for scatterer, expected in (
        ((one, none, one), (0, 0, math.sqrt(2))),  # sphere, odd bounce: blue
        ((one, none, -one), (math.sqrt(2), 0, 0)),  # dihedral, even bounce: red
        ((none, one, none), (0, math.sqrt(2), 0)),  # dihedral at 45 degrees, volume: green
    ):
        assert pauli(*scatterer).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_power_is_conserved_in_every_basis():
    hh, hv, vv = channels()
    total = span(hh, hv, vv)
    torch.testing.assert_close(pauli(hh, hv, vv).square().sum(-3), total)
    matrices = covariance(hh, hv, vv, 1)
    torch.testing.assert_close(span_of_covariance(matrices), total)
    torch.testing.assert_close(span_of_covariance(coherency(matrices)), total)
    torch.testing.assert_close(pauli_of_covariance(matrices), pauli(hh, hv, vv))


def test_covariance_is_the_window_mean():
    hh, hv, vv = channels()
    matrices = covariance(hh, hv, vv, 5)
    torch.testing.assert_close(matrices, matrices.transpose(-4, -3).conj())
    vector = torch.stack((hh, math.sqrt(2) * hv, vv), 0)[:, 8:13, 8:13].flatten(1)
    torch.testing.assert_close(matrices[..., 10, 10], vector @ vector.mH / 25)
    assert bool((torch.linalg.eigvalsh(matrices.movedim((-4, -3), (-2, -1))) > -1e-12).all())


def test_invalid_pixels_do_not_spread():
    hh, hv, vv = channels()
    hv[10, 10] = complex(1, math.nan)
    for result in (pauli(hh, hv, vv), covariance(hh, hv, vv, 5), span(hh, hv, vv)):
        lost = ~torch.isfinite(result).flatten(0, -3).all(0) if result.ndim > 2 else ~torch.isfinite(result)
        assert lost.nonzero().tolist() == [[10, 10]]


@pytest.mark.parametrize(
    ("domain", "expected"), [("intensity", [4.0, 0.5, 8.0]), ("amplitude", [4.0, 0.5, 8.0]), ("db", [4.0, 0.5, 3.5])]
)
def test_dual_composites(domain, expected):
    co, cross = torch.full((1, 2), 4.0), torch.tensor([[0.5, 0.0]])
    composite = dual_composite(co, cross, domain)
    assert composite[:, 0, 0].tolist() == expected
    assert torch.isnan(composite[:, 0, 1]).all() == (domain != "db")


def test_parts_of_a_complex_image():
    slc = torch.tensor([[3 - 4j, complex(math.nan, 0)]])
    expected = {"amplitude": 5, "intensity": 25, "real": 3, "imaginary": -4, "phase": math.atan2(-4, 3)}
    for part, value in expected.items():
        found = component(slc, part)
        assert found[0, 0].item() == pytest.approx(value)
        assert math.isnan(found[0, 1])
    with pytest.raises(InputError, match="Did you mean 'amplitude'"):
        component(slc, "ampltude")


def test_wrong_inputs_are_refused():
    hh, hv, vv = channels()
    with pytest.raises(InputError, match="lost their phase"):
        pauli(hh.abs(), hv.abs(), vv.abs())
    with pytest.raises(InputError, match="lost their phase"):
        component(hh.real, "amplitude")
    with pytest.raises(InputError, match="differ in size"):
        span(hh, hv[:3], vv)
    with pytest.raises(InputError, match="complex"):
        dual_composite(hh, hv, "intensity")
    with pytest.raises(InputError, match="no ratio"):
        dual_composite(hh.real, hv.real, "display8")
    with pytest.raises(InputError, match=r"\(..., 3, 3, H, W\)"):
        coherency(hh)

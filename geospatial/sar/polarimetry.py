"""Pictures and matrices from several polarisations. Single-look complex (SLC) inputs, reciprocity (HV = VH).

Channels come before rows and columns: (..., 3, H, W); matrices (..., 3, 3, H, W). An invalid (not finite) pixel of any
input is NaN in every output, and no other pixel is. Source: spec section 5.7; Cloude and Pottier 1996.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from geospatial.sar.domains import check_name, refuse_complex
from geospatial.sar.windows import moving_moments
from mmzoo.errors import InputError, suggestion

Part = Literal["amplitude", "intensity", "real", "imaginary", "phase"]


def component(slc: Tensor, part: str) -> Tensor:
    """One real reading of a complex image, same shape; phase in radians. real and imaginary keep their sign."""
    _need_complex(slc)
    if part not in get_args(Part):
        raise InputError(f"unknown part {part!r} of a complex image.{suggestion(part, get_args(Part))}")
    readings = {
        "amplitude": slc.abs,
        "intensity": lambda: slc.real.square() + slc.imag.square(),
        "real": lambda: slc.real,
        "imaginary": lambda: slc.imag,
        "phase": slc.angle,
    }
    return torch.where(torch.isfinite(slc), readings[part](), torch.nan)


def dual_composite(co: Tensor, cross: Tensor, domain: str) -> Tensor:
    """(co, cross, co / cross) of linear values, (co, cross, co - cross) of decibels; NaN where cross is 0.

    `domain`: intensity, amplitude or db, of both inputs and of the result.
    """
    check_name(domain)
    for image in (co, cross):
        refuse_complex(image)
    if domain not in ("intensity", "amplitude", "db"):
        raise InputError(f"a composite of {domain} values has no ratio. Give intensity, amplitude or db")
    _same_shape(co, cross)
    co, cross = co.float(), cross.float()
    ratio = co - cross if domain == "db" else co / cross
    return _stacked(co, cross, ratio)


def pauli(hh: Tensor, hv: Tensor, vv: Tensor) -> Tensor:
    """Pauli amplitudes (|HH - VV|, 2 |HV|, |HH + VV|) / sqrt 2 as red, green, blue; squares sum to the span."""
    _same_shape(hh, hv, vv)
    _need_complex(hh, hv, vv)
    return _stacked((hh - vv).abs(), 2 * hv.abs(), (hh + vv).abs()) / math.sqrt(2)


def span(hh: Tensor, hv: Tensor, vv: Tensor) -> Tensor:
    """Total power |HH|^2 + 2 |HV|^2 + |VV|^2 of complex channels."""
    _same_shape(hh, hv, vv)
    return component(hh, "intensity") + 2 * component(hv, "intensity") + component(vv, "intensity")


def covariance(hh: Tensor, hv: Tensor, vv: Tensor, window: int) -> Tensor:
    """C = <k k*> with k = (HH, sqrt 2 HV, VV), the mean over `window` x `window` pixels; NaN at invalid pixels.

    Invalid neighbours do not count.
    """
    _same_shape(hh, hv, vv)
    _need_complex(hh, hv, vv)
    vector = torch.stack((hh, math.sqrt(2) * hv, vv), -3)
    valid = torch.isfinite(vector).all(-3)[..., None, None, :, :]
    product = vector[..., :, None, :, :] * vector[..., None, :, :, :].conj()
    shape = product.shape
    real, imaginary = (moving_moments(part, window, valid.expand(shape)).mean for part in (product.real, product.imag))
    return torch.where(valid, torch.complex(real, imaginary), torch.nan)


def coherency(covariances: Tensor) -> Tensor:
    """T = U C U*, the same matrices in the Pauli basis (HH + VV, HH - VV, 2 HV) / sqrt 2."""
    _need_matrices(covariances)
    half = 1 / math.sqrt(2)
    basis = torch.tensor([[half, 0, half], [half, 0, -half], [0, 1, 0]], dtype=covariances.dtype)
    basis = basis.to(covariances.device)
    return torch.einsum("ab,...bchw,dc->...adhw", basis, covariances, basis)


def pauli_of_covariance(covariances: Tensor) -> Tensor:
    """Pauli amplitudes as `pauli` orders them, from covariance matrices."""
    diagonal = torch.diagonal(coherency(covariances), dim1=-4, dim2=-3).real  # (..., H, W, 3)
    return diagonal.movedim(-1, -3)[..., [1, 2, 0], :, :].clamp(min=0).sqrt()


def span_of_covariance(covariances: Tensor) -> Tensor:
    """Total power: the trace."""
    _need_matrices(covariances)
    return torch.diagonal(covariances, dim1=-4, dim2=-3).real.sum(-1)


def _stacked(*channels: Tensor) -> Tensor:
    together = torch.stack(channels, -3)
    return torch.where(torch.isfinite(together).all(-3, keepdim=True), together, torch.nan)


def _need_complex(*images: Tensor) -> None:
    if not all(image.is_complex() for image in images):
        raise InputError("polarimetry needs complex (SLC) images; detected ones have lost their phase")


def _need_matrices(covariances: Tensor) -> None:
    _need_complex(covariances)
    if covariances.ndim < 4 or covariances.shape[-4:-2] != (3, 3):
        raise InputError(f"covariance matrices are (..., 3, 3, H, W), not {tuple(covariances.shape)}")


def _same_shape(*images: Tensor) -> None:
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise InputError(f"the polarisations differ in size: {', '.join(map(str, sorted(shapes)))}. Crop them alike")

"""PSNR and SSIM of reconstructed images, on the bytes that a viewer would see.

Both sides go through the one `to_bytes`, so no rounding favours either (spec evotok.md section 5.1 lists what happens
otherwise: an off-by-one in the ground truth, and SSIM with a data range of 2 on values in [0, 1]).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from mmzoo.errors import InputError

PEAK = 255.0  #: of a byte
SIGMA = 1.5  #: px, of SSIM's gaussian window
WINDOW = 11  #: px, its side: 2 * int(3.5 * SIGMA + 0.5) + 1
UNIFORM_WINDOW = 7  #: px, of scikit-image's default SSIM


def to_bytes(images: Tensor) -> np.ndarray:
    """images (B, 3, H, W) in [-1, 1], clamped -> uint8 (B, H, W, 3), the nearest byte of (x + 1) * 127.5.

    A value half-way between two bytes goes to the even one. InputError when a value is NaN.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images {tuple(images.shape)} must be (B, 3, H, W)")
    levels = images.detach().float().clamp(-1, 1).add(1).mul(127.5).round().cpu()
    if bool(levels.isnan().any()):
        raise InputError("the images hold NaN. Look at the training of this model: it has diverged.")
    return levels.byte().permute(0, 2, 3, 1).contiguous().numpy()


def psnr(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio (B,) in dB of uint8 images (B, H, W, 3): 10 log10(255^2 / mean squared error).

    +inf for equal images, never capped: whoever takes a mean sets these aside and says how many there were.
    """
    _check(first, second)
    difference = first.astype(np.float64) - second.astype(np.float64)
    error = np.square(difference).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(PEAK**2 / error)


def ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Structural similarity (B,) in [-1, 1] of uint8 images (B, H, W, 3), mean over the three channels.

    Wang et al. 2004 (doi 10.1109/TIP.2003.819861): gaussian window of 11 px and sigma 1.5, population covariance,
    K1 0.01, K2 0.03, only where the window lies inside the image. InputError: a side shorter than the window.
    """
    _check(first, second)
    if min(first.shape[1:3]) < WINDOW:
        raise InputError(
            f"SSIM needs images of at least {WINDOW} px a side; these have {first.shape[1]}x{first.shape[2]} px. "
            "Measure larger crops."
        )
    return np.array([_ssim_of_one(*pair) for pair in zip(first, second, strict=True)], dtype=np.float64)


def ssim_range_2(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """SSIM (B,) as LlamaGen and its descendants report it, of uint8 images (B, H, W, 3): not comparable with `ssim`.

    Values in [0, 1] with a data range of 2: the constants that keep quotients of small numbers stable are four times
    too large, which raises the number. The rest is scikit-image's default: uniform window of 7 px, sample covariance.
    """
    _check(first, second)
    if min(first.shape[1:3]) < UNIFORM_WINDOW:
        raise InputError(
            f"this SSIM needs images of at least {UNIFORM_WINDOW} px a side; these have {first.shape[1:3]}."
        )
    pairs = zip(first / PEAK, second / PEAK, strict=True)
    similar: list[Any] = [structural_similarity(*pair, channel_axis=-1, data_range=2.0) for pair in pairs]
    return np.array(similar, dtype=np.float64)


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]; `to_bytes` gives the same bytes back."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.5).contiguous()


def _ssim_of_one(first: np.ndarray, second: np.ndarray) -> float:
    similarity: Any = structural_similarity(  # its type tells of options that are not used here
        first,
        second,
        channel_axis=-1,
        data_range=PEAK,
        gaussian_weights=True,
        sigma=SIGMA,
        use_sample_covariance=False,
    )
    return float(similarity)


def _check(first: np.ndarray, second: np.ndarray) -> None:
    if first.dtype != np.uint8 or second.dtype != np.uint8:
        raise ValueError(f"{first.dtype} and {second.dtype}: both sides must be uint8, see to_bytes")
    if first.ndim != 4 or first.shape != second.shape:
        raise ValueError(f"{first.shape} and {second.shape}: both sides must be one (B, H, W, 3)")

"""The three descriptors around every pixel: maps for looking at a scene, and for its looks where it is homogeneous.

They are the image's descriptors (`descriptors`) with a window in place of the image: the histogram of directions,
mean and variance, and the variance of the block means, each over the `window` x `window` pixels around a pixel as far
as they are in the image. Blocks lie at every position, not side by side, so that neighbours do not jump.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from geospatial.sar.descriptors import DEFAULTS, DescriptorSettings, chosen_values
from geospatial.sar.gradient_directions import counted_gradients, direction_bins, sobel, surrounded
from geospatial.sar.windows import check_window, moving_moments, moving_sum
from mmzoo.errors import InputError


@torch.no_grad()
def local_descriptors(
    image: Tensor,
    domain: str,
    window: int,
    block: int = 3,
    valid: Tensor | None = None,
    band: int | Literal["mean"] | None = None,
) -> Tensor:
    """(B, 3, H, W) float32: H, ENL and R of the window around each pixel of `image` (B, C, H, W); NaN if it is invalid.

    `window` and `block` are odd; other arguments and errors as `descriptors.physical_descriptors` has them, and bins,
    period, weight and tau as its defaults.
    """
    check_window(window)
    check_window(block)
    if block > window:
        raise InputError(f"a block of {block} pixels does not fit a window of {window}. Give a smaller block")
    values, usable = chosen_values(image, domain, valid, band)
    maps = (
        local_entropy(values, usable, window, DEFAULTS),
        local_looks(values, usable, window, DEFAULTS.enl_max),
        local_roughness(values, usable, window, block),
    )
    return torch.where(usable[:, None], torch.stack(maps, 1), torch.nan)


def local_entropy(values: Tensor, usable: Tensor, window: int, settings: DescriptorSettings = DEFAULTS) -> Tensor:
    """H (B, H, W) of the gradients of `values` (B, H, W) in each window; 0 where none has a direction."""
    gx, gy = sobel(values)
    if gx.numel() == 0:
        return torch.zeros_like(values)
    weights = counted_gradients(gx, gy, surrounded(usable), settings.weight, settings.tau)
    bins = direction_bins(gx, gy, settings.bins, settings.period)
    tiny = torch.finfo(values.dtype).tiny
    total = moving_sum(pad(weights, (1, 1, 1, 1)), window).clamp(min=tiny)
    entropy = torch.zeros_like(values)
    for one in range(settings.bins):
        counts = moving_sum(pad(weights * (bins == one), (1, 1, 1, 1)), window)
        entropy += torch.special.entr(counts / total)
    return entropy


def local_looks(values: Tensor, usable: Tensor, window: int, most: float = DEFAULTS.enl_max) -> Tensor:
    """mean^2 / variance (B, H, W) in each window of `values`; `most` where nothing varies, 1 below two pixels."""
    moments = moving_moments(values, window, usable)
    variance = moments.variance()
    ratio = moments.mean.square() / variance.clamp(min=torch.finfo(values.dtype).tiny)
    looks = torch.where(variance > 0, ratio.clamp(max=most), most)
    return torch.where(moments.count >= 2, looks, 1.0)


def local_roughness(values: Tensor, usable: Tensor, window: int, block: int) -> Tensor:
    """Variance (B, H, W) of the means of those `block` x `block` blocks whose middle is usable and in the window.

    Blocks reach at most half their side beyond the window.
    """
    means = moving_moments(values, block, usable).mean
    return moving_moments(means, window, usable).variance()

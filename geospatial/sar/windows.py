"""Mean and variance in a window around every pixel, over the valid pixels alone.

Two halves of a window know their count, mean and sum of squared deviations; merged, they are the whole's (Chan, Golub
and LeVeque 1983). A window of w pixels is made by doubling, in about 2 log2 w merges of whole images, and nothing ever
cancels: a flat window has variance 0 exactly, a bright one as accurate a variance as a dark one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmzoo.errors import InputError

Parts = tuple[Tensor, ...]
Merge = Callable[[Parts, Parts], Parts]


@dataclass(frozen=True)
class Moments:
    """Of the valid pixels in a window: how many, their mean (0 without any), their squared deviations; (..., H, W)."""

    count: Tensor
    mean: Tensor
    squares: Tensor

    def variance(self) -> Tensor:
        """Population variance; 0 without pixels."""
        return self.squares / self.count.clamp(min=1)

    def variation(self) -> Tensor:
        """Squared coefficient of variation, variance / mean^2; 0 where the mean is 0 or below."""
        tiny = torch.finfo(self.mean.dtype).tiny
        return torch.where(self.mean > 0, self.variance() / self.mean.square().clamp(min=tiny), 0)


def check_window(window: int) -> None:
    """InputError unless `window` is odd and positive, so that it has a middle."""
    if window < 1 or window % 2 == 0:
        raise InputError(f"a window has an odd number of pixels, not {window}. Try {max(1, window // 2 * 2 + 1)}")


def moving_moments(values: Tensor, window: int, valid: Tensor | None = None) -> Moments:
    """Moments of the `window` x `window` pixels around each of `values` (..., H, W), as far as they are in the image.

    `valid` (boolean, same shape) leaves pixels out; what their values are does not matter.
    """
    check_window(window)
    count = torch.ones_like(values) if valid is None else valid.to(values.dtype)
    clean = values if valid is None else torch.where(valid, values, 0)
    return Moments(*_moved((count, clean, torch.zeros_like(values)), window, _merge))


def moving_sum(values: Tensor, window: int) -> Tensor:
    """Sum of the `window` x `window` pixels around each of `values` (..., H, W), as far as they are in the image."""
    check_window(window)
    return _moved((values,), window, lambda first, second: (first[0] + second[0],))[0]


def _merge(first: Parts, second: Parts) -> Parts:
    """Count, mean and squared deviations of two disjoint sets together."""
    count = first[0] + second[0]
    share = second[0] / count.clamp(min=1)
    step = second[1] - first[1]
    return count, first[1] + step * share, first[2] + second[2] + step.square() * first[0] * share


def _moved(parts: Parts, window: int, merge: Merge) -> Parts:
    half = window // 2
    parts = tuple(pad(part, (half, half, half, half)) for part in parts)
    for dim in (-1, -2):
        parts = _doubled(parts, dim, window, merge)
    return parts


def _doubled(parts: Parts, dim: int, window: int, merge: Merge) -> Parts:
    """Runs of `window` along `dim`, merged from runs of 1, 2, 4, ... by the binary digits of `window`."""
    length = parts[0].shape[dim] - window + 1
    whole: Parts = ()
    covered, run, left = 0, 1, window
    while left:
        if left & 1:
            piece = _narrow(parts, dim, covered, length)
            whole = merge(whole, piece) if whole else piece
            covered += run
        left >>= 1
        if left:
            reach = parts[0].shape[dim] - run
            parts = merge(_narrow(parts, dim, 0, reach), _narrow(parts, dim, run, reach))
            run *= 2
    return whole


def _narrow(parts: Parts, dim: int, start: int, length: int) -> Parts:
    return tuple(part.narrow(dim, start, length) for part in parts)

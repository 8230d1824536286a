"""Measures an image tokenizer: encode, decode from a growing number of levels, compare bytes. README.md: why so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from eval_suites.metrics.reconstruction import psnr, ssim, to_bytes
from eval_suites.statistics import Interval, bootstrap_mean
from mmzoo.errors import InputError
from mmzoo.ops.residual_vq import code_counts, usage_of_counts


class PixelTokenizer(Protocol):
    """What the suite asks of a model. Images are (B, 3, H, W) in [-1, 1]."""

    def encode(self, images: Tensor, /) -> tuple[Tensor, Any]:
        """Codes (B, h, w, L) int64, and a latent of which only NaN and infinities are looked for (None: none)."""
        ...

    def decode_pixels(self, codes: Tensor, /) -> Tensor:
        """Codes (B, h, w, n) of the first n levels -> images of the size that was encoded."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """One crop at one number of levels. `crop`: the how-manieth crop of its group. `psnr` in dB, inf = equal bytes."""

    group: str
    crop: int
    levels: int
    psnr: float
    ssim: float


@dataclass(frozen=True, slots=True)
class CodeUsage:
    """One codebook (`level` from 1) over all `positions`: `share` in use, in [0, 1]; `perplexity` in [1, K]."""

    level: int
    share: float
    perplexity: float
    positions: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """`rows`: one a crop and number of levels; `usage`: one a codebook level of the model, measured or not."""

    rows: list[Row]
    usage: list[CodeUsage]


def measure(
    model: PixelTokenizer,
    batches: Iterable[tuple[Sequence[str], Tensor]],
    levels: Sequence[int],
    *,
    codebook_size: int,
    device: torch.device | str = "cpu",
) -> Measurement:
    """PSNR and SSIM of every image of `batches` at each of `levels`, and the codebooks' usage.

    A batch is (names of the groups (B,), images (B, 3, H, W) in [-1, 1]); crops of one photograph share a group. The
    order of the batches changes nothing but the numbers of the crops. The model is in evaluation mode meanwhile; one
    that warns of a prefix it was not trained on is let warn: such prefixes are the subject. InputError: levels that the
    model does not have, no images, images below 11 px, or outputs of another size than the images.
    """
    wanted = _checked_levels(levels)
    crops: Counter[str] = Counter()
    rows: list[Row] = []
    counts: Tensor | None = None
    with torch.inference_mode(), evaluation_mode(model):
        for groups, images in batches:
            if len(groups) != len(images):
                raise ValueError(f"{len(groups)} group names for {len(images)} images")
            if not len(images):
                continue
            codes = encoded(model, images.to(device))
            if wanted[-1] > codes.shape[-1]:
                raise InputError(f"level {wanted[-1]} was asked for; this model has levels 1 to {codes.shape[-1]}.")
            if int(codes.max()) >= codebook_size:
                raise ValueError(f"code {int(codes.max())} is outside a codebook of {codebook_size}")
            found = code_counts(codes, codebook_size)
            counts = found if counts is None else counts + found
            rows += _compare(model, images, codes, wanted, _numbered(groups, crops))
    if counts is None:
        raise InputError("there are no images to measure. Look at the split and the shards: mmzoo data inspect.")
    return Measurement(rows, _usage(counts))


def summarise(rows: Sequence[Row], *, level: float = 0.95, seed: int = 0) -> dict[int, dict[str, Interval]]:
    """{number of levels: {"psnr": ..., "ssim": ...}}: means over crops, intervals by resampling whole groups.

    Exact crops have no finite PSNR: `n_infinite` of the PSNR's interval says how many were left out of its mean.
    """
    summary: dict[int, dict[str, Interval]] = {}
    for count in sorted({row.levels for row in rows}):
        chosen = [row for row in rows if row.levels == count]
        groups = [row.group for row in chosen]
        columns = {"psnr": [row.psnr for row in chosen], "ssim": [row.ssim for row in chosen]}
        summary[count] = {
            name: bootstrap_mean(values, groups, level=level, seed=seed) for name, values in columns.items()
        }
    return summary


def _checked_levels(levels: Sequence[int]) -> list[int]:
    wanted = sorted(set(levels))
    if not wanted or wanted[0] < 1:
        raise InputError(f"levels {list(levels)}: give one or more numbers of levels, from 1 up, e.g. 1,2,4.")
    return wanted


@contextmanager
def evaluation_mode(model: PixelTokenizer) -> Iterator[None]:
    """Evaluation mode for a torch module, and each part's own mode back afterwards: measuring must teach it nothing."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _numbered(groups: Sequence[str], crops: Counter[str]) -> list[tuple[str, int]]:
    """Each group's name with the number of its next crop; `crops` remembers across batches."""
    named = []
    for group in groups:
        named.append((group, crops[group]))
        crops[group] += 1
    return named


def encoded(model: PixelTokenizer, images: Tensor) -> Tensor:
    """The codes (B, h, w, L) of images. InputError: a latent that is not finite, whose codes would mean nothing."""
    codes, latent = model.encode(images)
    if isinstance(latent, Tensor):
        refuse_not_finite(latent, "latent")
    return codes


def refuse_not_finite(found: Tensor, what: str) -> Tensor:
    """`found` itself. InputError: NaN or infinities in it, of which figures could be made that mean nothing."""
    if not bool(found.isfinite().all()):
        raise InputError(
            f"the model's {what} is not finite (NaN or infinite): its training has diverged, "
            f"or its weights are damaged. Name an earlier checkpoint, or train again with a lower learning rate."
        )
    return found


def _compare(
    model: PixelTokenizer, images: Tensor, codes: Tensor, levels: list[int], named: list[tuple[str, int]]
) -> list[Row]:
    truth = to_bytes(images)
    rows = []
    for count in levels:
        decoded = to_bytes(refuse_not_finite(model.decode_pixels(codes[..., :count]), f"output from {count} levels"))
        if decoded.shape != truth.shape:
            sizes = [f"{side.shape[1]}x{side.shape[2]} px" for side in (truth, decoded)]
            raise InputError(f"images of {sizes[0]} come back as {sizes[1]}. Crop to the model's own image size.")
        values = zip(named, psnr(truth, decoded).tolist(), ssim(truth, decoded).tolist(), strict=True)
        rows += [Row(group, crop, count, decibels, similarity) for (group, crop), decibels, similarity in values]
    return rows


def _usage(counts: Tensor) -> list[CodeUsage]:
    share, perplexity = usage_of_counts(counts)
    figures = zip(share.tolist(), perplexity.tolist(), counts.sum(1).tolist(), strict=True)
    return [CodeUsage(level, *figure) for level, figure in enumerate(figures, start=1)]

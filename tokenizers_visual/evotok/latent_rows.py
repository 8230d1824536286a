"""Latents as rows of positions and back, and the checks on what a quantiser is given."""

from __future__ import annotations

import torch
from torch import Tensor

from mmzoo.errors import InputError
from tokenizers_visual.evotok.codebook import QuantizerSettings


def rows_of(latent: Tensor) -> Tensor:
    """(B, D, H, W) -> (B*H*W, D) float32, row-major positions."""
    return latent.float().permute(0, 2, 3, 1).reshape(-1, latent.shape[1])


def grid_of(rows: Tensor, latent: Tensor) -> Tensor:
    """(B*H*W, C) -> (B, H, W, C)."""
    batch, _, height, width = latent.shape
    return rows.view(batch, height, width, rows.shape[1])


def planes_of(rows: Tensor, latent: Tensor) -> Tensor:
    """(B*H*W, D) -> (B, D, H, W)."""
    return grid_of(rows, latent).permute(0, 3, 1, 2)


def check_latent(latent: Tensor, settings: QuantizerSettings) -> None:
    """InputError unless the latent is (B, D, H, W)."""
    if latent.ndim != 4 or latent.shape[1] != settings.latent_dim:
        raise InputError(
            f"quantizer: latent has shape {tuple(latent.shape)}; expected (B, {settings.latent_dim}, H, W)"
        )


def check_codes(codes: Tensor, settings: QuantizerSettings) -> None:
    """InputError unless the codes are int64 (B, H, W, n), n levels of the L, each below the codebook's size."""
    levels, size = settings.levels, settings.codebook_size
    if codes.ndim != 4 or not 1 <= codes.shape[-1] <= levels:
        raise InputError(f"quantizer: codes have shape {tuple(codes.shape)}; expected (B, H, W, 1 to {levels})")
    if codes.dtype != torch.int64:
        raise InputError(f"quantizer: codes are {codes.dtype}; expected torch.int64")
    if codes.numel() == 0 or codes.is_meta:
        return
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= size:
        raise InputError(f"quantizer: codes lie in {low}..{high}; the codebooks have codes 0..{size - 1}")

"""Descriptors of radar images: maps against scipy's generic_filter, and one image against the encoder that reads them.

The encoder is transformers' Dinov2Model of the smallest size, ViT-S at patch 16: what it costs to make the three
numbers is the largest share there. The share is of one image of 512 x 512, forward only.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import generic_filter
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from geospatial.sar.descriptors import physical_descriptors
from geospatial.sar.local_descriptors import local_looks
from geospatial.sar.speckle import SpeckleFilter, despeckle
from geospatial.sar.windows import moving_moments
from tests.benchmarks.record import Comparison
from tests.benchmarks.timing import Contender, interleaved

SIDE, WINDOW, ROUNDS = 256, 7, 3
LEAST_RATIO = 100.0
#: At most 3 % of the encoder.
LEAST_ENCODER_RATIO = 1 / 0.03
IMAGE_SIDE, ENCODER_ROUNDS = 512, 9


def speckle(side: int) -> Tensor:
    """Four-look speckle (side, side) with a bright target, float32."""
    power = np.random.default_rng(0).gamma(4, 0.25, (side, side)).astype(np.float32)
    power[side // 2, side // 2] = 1000
    return torch.as_tensor(power)


def looks_of(pixels: np.ndarray) -> float:
    return pixels.mean() ** 2 / pixels.var()


def lee_of(pixels: np.ndarray) -> float:
    mean, variance = pixels.mean(), pixels.var()
    return mean + max(0.0, 1 - mean**2 / (4 * variance)) * (pixels[len(pixels) // 2] - mean)


def compare() -> list[Comparison]:
    """Equal away from the border, where theirs mirrors the image and ours ends the window; then timed."""
    power = speckle(SIDE)
    usable = torch.ones(SIDE, SIDE, dtype=torch.bool)
    array, filter, inner = power.double().numpy(), SpeckleFilter("lee", 4, WINDOW), slice(WINDOW, -WINDOW)
    pairs = {
        "local variance": (lambda: moving_moments(power, WINDOW, usable).variance(), np.var),
        "local looks": (lambda: local_looks(power, usable, WINDOW), looks_of),
        "Lee filter": (lambda: despeckle(power, "intensity", filter), lee_of),
    }
    found: list[Comparison] = []
    for name, (ours, function) in pairs.items():
        theirs = generic_filter(array, function, WINDOW)
        np.testing.assert_allclose(ours()[inner, inner], theirs[inner, inner], rtol=2e-3)
        contenders = {
            "ours": Contender(ours),
            "theirs": Contender(lambda function=function: generic_filter(array, function, WINDOW)),
        }
        seconds = interleaved(contenders, ROUNDS)
        case = f"{name}, {SIDE} x {SIDE}, window {WINDOW}"
        found.append(Comparison(case, "generic_filter", seconds["ours"], seconds["theirs"], at_least=LEAST_RATIO))
    return [*found, _share_of_encoder()]


def _share_of_encoder() -> Comparison:
    power = speckle(IMAGE_SIDE)[None, None]
    config = Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=IMAGE_SIDE, patch_size=16)
    encoder = Dinov2Model(config).eval()
    image = power.log1p().expand(1, 3, -1, -1).contiguous()
    with torch.inference_mode():
        assert torch.isfinite(encoder(image).last_hidden_state).all()
        assert torch.isfinite(physical_descriptors(power, "log1p")).all()
        contenders = {
            "ours": Contender(lambda: physical_descriptors(power, "log1p")),
            "encoder": Contender(lambda: encoder(image)),
        }
        seconds = interleaved(contenders, ENCODER_ROUNDS)
    case = f"three descriptors of {IMAGE_SIDE} x {IMAGE_SIDE}"
    return Comparison(case, "ViT-S encoder", seconds["ours"], seconds["encoder"], at_least=LEAST_ENCODER_RATIO)

"""The whole encoder, size S at 512 px, forward and backward, against transformers' dense DINOv2, from which it is made.

And what is not in the dense one: descriptors, routers and the moving of rows, as a share of the forward pass.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import Dinov2Config, Dinov2Model

from geospatial.crossearth_sar.contract import example_batch
from geospatial.crossearth_sar.modeling import CrossEarthSARModel
from geospatial.crossearth_sar.official import config_from_official, to_ours
from tests.benchmarks.record import Comparison
from tests.benchmarks.timing import Contender, interleaved

SIZES: dict[str, Any] = {
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "patch_size": 16,
    "image_size": 512,
}
ROUNDS = 3
#: "At most 1.15 times the dense encoder's time", as a ratio dense / ours; descriptors at most 3 % of the forward pass.
WHOLE, DESCRIPTORS = 1 / 1.15, 1 / 0.03
TOLERANCE = 1e-4


def compare() -> list[Comparison]:
    """One image of 1,025 tokens: forward, forward and backward; the descriptors alone."""
    torch.manual_seed(0)
    dense = Dinov2Model(Dinov2Config(**SIZES, layerscale_value=1.0)).eval()
    config = config_from_official(dense.config.to_dict())
    ours = CrossEarthSARModel(config).eval()
    ours.load_state_dict(to_ours(dense.state_dict(), config)[0])
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    images = example_batch(config, 1, seed=0)["pixel_values"]
    _check(dense, ours, images)
    forward = interleaved(
        {
            "ours": Contender(lambda: _forward(ours, images)),
            "dense": Contender(lambda: _forward(dense, images)),
            "descriptors": Contender(lambda: ours.descriptors(images)),
        },
        ROUNDS,
        clock,
    )
    step = interleaved(
        {
            "ours": Contender(lambda: _step(ours, images), ours.zero_grad),
            "dense": Contender(lambda: _step(dense, images), dense.zero_grad),
        },
        ROUNDS,
        clock,
    )
    name = "S, 512 px, one image"
    return [
        Comparison(f"{name}, fwd", "dense DINOv2", forward["ours"], forward["dense"], at_least=WHOLE),
        Comparison(f"{name}, fwd + bwd", "dense DINOv2", step["ours"], step["dense"], at_least=WHOLE),
        Comparison(
            f"{name}, descriptors alone", "our whole fwd", forward["descriptors"], forward["ours"], at_least=DESCRIPTORS
        ),
    ]


def _forward(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(images).last_hidden_state


def _step(model: torch.nn.Module, images: torch.Tensor) -> None:
    model(images).last_hidden_state.square().mean().backward()


def _check(dense: torch.nn.Module, ours: torch.nn.Module, images: torch.Tensor) -> None:
    """AssertionError unless both compute the same; each also runs a whole step once, to warm up."""
    torch.testing.assert_close(_forward(ours, images), _forward(dense, images), atol=TOLERANCE, rtol=TOLERANCE)
    _step(ours, images)
    _step(dense, images)

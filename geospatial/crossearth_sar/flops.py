"""What a forward pass costs, counted from the sizes: two operations a multiply-add.

Norms, activations, biases, descriptors and the moving of rows are left out, as torch.utils.flop_counter leaves them
out; the router's part of the descriptors is counted.
"""

from __future__ import annotations

from geospatial.crossearth_sar.blocks import BANDS
from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.router import DESCRIPTORS


def forward_flops(config: CrossEarthSARConfig, tokens: int) -> dict[str, int]:
    """Operations on one image of `tokens` patches, by kind of work: "conv", "linear", "experts", "router", "attention".

    Of the experts only those that a token uses.
    """
    width, depth, sequence = config.hidden_size, config.num_hidden_layers, tokens + 1  # the cls token
    router = config.num_experts * (sequence * width + DESCRIPTORS)
    return {
        "conv": 2 * tokens * width * BANDS * config.patch_size**2,
        "linear": 2 * depth * sequence * 4 * width**2,
        "experts": 2 * depth * sequence * config.experts_per_token * 2 * width * config.expert_width,
        "router": 2 * depth * router,
        "attention": 2 * depth * 2 * sequence**2 * width,
    }

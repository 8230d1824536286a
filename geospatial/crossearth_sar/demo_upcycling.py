"""The demo's middle: a dense model's weights under DINOv2's names, and the proof that its experts compute the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from geospatial.crossearth_sar.modeling import CrossEarthSARModel
from geospatial.crossearth_sar.official import to_official
from geospatial.crossearth_sar.router import ExpertLayer
from geospatial.crossearth_sar.segmentation_model import CrossEarthSARForSegmentation
from mmzoo.families import get_variant

#: A token that is sent to one expert by hand gets this added to its logit.
FORCED = 1e4
#: float32 adds the rows of a product in another order when they come in other groups; more than this is a fault.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Identity:
    """How it compares with the dense one on `images` tiles of scenes, over all maps and the last state.

    `experts`: that gave the dense model's bits, each one alone on all tokens. `used`: experts that the routers chose,
    by themselves. `equal_share`: of values that were bit-equal then, `difference`: the largest, `size`: of values.
    """

    images: int
    experts: int
    used: int
    equal_share: float
    difference: float
    size: float


def write_dense_weights(model: CrossEarthSARForSegmentation, weights: Path, config: Path, variant: str) -> None:
    """The encoder of a model with one expert as plain DINOv2 weights, and the JSON of the sparse variant's settings,
    for `mmzoo models import`.
    """
    official = to_official(model.encoder_state(), model.config, None)
    dense = {name.replace(".mlp.experts.0.", ".mlp."): tensor for name, tensor in official.items()}
    dense = {name: tensor.contiguous() for name, tensor in dense.items() if ".mlp.router." not in name}
    save_file(dense, weights)
    family, name = get_variant(variant)
    config.write_text(json.dumps(dict(family.variants[name]), indent=1) + "\n", encoding="utf-8")


@torch.inference_mode()
def compare(dense: CrossEarthSARModel, sparse: CrossEarthSARModel, batch: dict[str, Tensor]) -> Identity:
    """RuntimeError unless each expert alone gives the dense encoder's bits, and all together its values to rounding."""
    wanted = _answers(dense, batch)
    experts = sparse.config.num_experts
    for number in range(experts):
        if not torch.equal(_forced(sparse, number, batch), wanted):
            raise RuntimeError(f"expert {number} of the upcycled encoder does not compute what the dense model does")
    given = _answers(sparse, batch)
    difference, size = float((given - wanted).abs().max()), float(wanted.abs().max())
    if difference > ROUNDING * max(1.0, size):
        raise RuntimeError(f"the upcycled encoder differs from the dense one by {difference:.3g}, more than rounding")
    used = int((sparse(**batch).expert_counts.sum(0) > 0).sum())
    equal = float((given == wanted).float().mean())
    return Identity(len(batch["pixel_values"]), experts, used, equal, difference, size)


def _answers(model: CrossEarthSARModel, batch: dict[str, Tensor]) -> Tensor:
    """All maps and the last state, one behind the other."""
    output = model(**batch)
    return torch.cat([part.flatten() for part in (*output.feature_maps, output.last_hidden_state)])


def _forced(model: CrossEarthSARModel, expert: int, batch: dict[str, Tensor]) -> Tensor:
    """The answers when every token of every block goes to one expert; the model is left as it was."""
    routers = [module.router for module in model.modules() if isinstance(module, ExpertLayer)]
    kept = [router.bias.clone() for router in routers]
    try:
        for router in routers:
            router.bias[expert] += FORCED
        return _answers(model, batch)
    finally:
        for router, bias in zip(routers, kept, strict=True):
            router.bias.copy_(bias)

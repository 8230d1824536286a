"""Where the shared encoder's weights start: from the teacher where the two are alike, or from a SigLIP on disk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmzoo.errors import InputError
from tokenizers_visual.evotok.teacher import first_line, load_transformers_tower
from tokenizers_visual.evotok.vision_encoder import VisionEncoder


def start_from_folder(encoder: VisionEncoder, source: str) -> dict[str, Any]:
    """Takes the weights of a SigLIP folder or Hub id; InputError when they are absent or of another size."""
    try:
        tower = load_transformers_tower(source)
    except InputError:
        raise
    except Exception as fault:  # transformers, safetensors and the Hub client each raise their own for "not there"
        raise InputError(
            f"the encoder's weights {source!r} could not be loaded ({first_line(fault)}). "
            f"Give a local folder, or a Hub id while the network is there: model.encoder_from."
        ) from fault
    weights = tower_weights(tower)
    if reason := misfit(encoder, weights):
        raise InputError(f"the encoder cannot start from {source}: {reason}. Choose a variant of that size.")
    copy_weights(encoder, weights)
    return {"encoder_from": source, "commit": getattr(tower.config, "_commit_hash", None)}


def start_from_teacher(encoder: VisionEncoder, network: nn.Module) -> dict[str, Any]:
    """Takes the teacher's weights where it is a SigLIP of the same sizes; says in the receipt when it is not."""
    weights = tower_weights(network)
    if reason := misfit(encoder, weights):
        return {"encoder_from": "random values", "because": f"the teacher does not fit: {reason}"}
    copy_weights(encoder, weights)
    return {"encoder_from": "the teacher"}


def tower_weights(tower: nn.Module) -> dict[str, Tensor]:
    """The state of a transformers SiglipVisionModel under the names of our VisionEncoder."""
    return {
        name.removeprefix("vision_model.").removeprefix("encoder."): tensor
        for name, tensor in tower.state_dict().items()
    }


def misfit(encoder: VisionEncoder, weights: dict[str, Tensor]) -> str | None:
    """Why the weights are not those of this encoder, or None. Layers that a slim encoder leaves out may be there."""
    for name, tensor in encoder.state_dict().items():
        if name not in weights:
            return f"it has no {name}"
        if weights[name].shape != tensor.shape:
            return f"{name} is {tuple(weights[name].shape)} there and {tuple(tensor.shape)} here"
    return None


@torch.no_grad()
def copy_weights(encoder: VisionEncoder, weights: dict[str, Tensor]) -> None:
    """Overwrites every tensor of the encoder."""
    for name, tensor in encoder.state_dict().items():
        tensor.copy_(weights[name])

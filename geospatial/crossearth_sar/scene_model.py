"""A segmentation model of this family as what looks at the tiles of a scene, with its experts and descriptors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from geospatial.crossearth_sar.blocks import BANDS
from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.router import DESCRIPTORS
from geospatial.crossearth_sar.scaling import normalized
from geospatial.crossearth_sar.segmentation_model import CrossEarthSARForSegmentation
from geospatial.scene_layers import (
    Layer,
    classes_layer,
    confidence_layer,
    descriptors_layer,
    experts_layer,
    probabilities_layer,
)
from mmzoo.errors import InputError

DESCRIPTOR_NAMES = ("directional entropy", "equivalent number of looks", "local roughness")
EXTRAS = ("confidence", "probabilities", "experts", "descriptors")


class TileSegmenter:
    """See geospatial.scene_inference.TileModel. Channels: class probabilities; then, when `extras` name them, the share
    of each expert in the choices of a pixel's token over all blocks, and the three numbers that the routers were given.

    `scene_descriptors` (3,): for all tiles, instead of those of each one.
    """

    def __init__(
        self, model: CrossEarthSARForSegmentation, extras: Iterable[str] = (), overviews: str = "mode"
    ) -> None:
        self.model, self.device = model.eval(), model.device
        self.names = list(model.config.class_names or ())
        self.extras = [name for name in EXTRAS if name in set(extras)]
        self.layers = self._layers(overviews)
        experts = model.config.num_experts if "experts" in self.extras else 0
        self.channels = len(self.names) + experts + (DESCRIPTORS if "descriptors" in self.extras else 0)
        self.scene_descriptors: Tensor | None = None

    def _layers(self, overviews: str) -> list[Layer]:
        classes, experts = len(self.names), self.model.config.num_experts
        scaled = "" if self.model.config.descriptor_scaling == "none" else ", scaled"
        known = {
            "confidence": lambda: confidence_layer(classes),
            "probabilities": lambda: probabilities_layer(self.names),
            "experts": lambda: experts_layer(classes, experts),
            "descriptors": lambda: descriptors_layer(
                classes + (experts if "experts" in self.extras else 0), [name + scaled for name in DESCRIPTOR_NAMES]
            ),
        }
        return [classes_layer(self.names, overviews), *(known[name]() for name in self.extras)]

    def check(self, domain: str, bands: int, path: Path) -> None:
        """InputError: the model does not take such a raster."""
        wanted = self.model.config.domain
        if domain != wanted:
            raise InputError(f"{path} holds {domain} values, the model takes {wanted}. Convert them, or set --domain")
        if bands not in (1, BANDS):
            raise InputError(f"the model takes 1 or {BANDS} bands, {path} gives {bands}. Choose some: --bands")

    def _inputs(self, values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        known = valid.to(self.device)
        image = values.to(self.device).expand(-1, BANDS, -1, -1)
        return normalized(image, known, self.model.config), known

    @torch.inference_mode()
    def describe(self, values: Tensor, valid: Tensor) -> Tensor:
        """The descriptors (B, 3) of tiles, as the routers get them; arguments as `predict`."""
        pixels, known = self._inputs(values, valid)
        return self.model.encoder.descriptors(pixels, known)

    @torch.inference_mode()
    def predict(self, values: Tensor, valid: Tensor) -> Tensor:
        """See TileModel."""
        pixels, known = self._inputs(values, valid)
        given = self.scene_descriptors
        physics = None if given is None else given.to(self.device).expand(len(pixels), -1)
        outputs = self.model(pixels, descriptors=physics, valid=known)
        size = pixels.shape[-2], pixels.shape[-1]
        parts = [self.model.head.scores(outputs.head, size)]
        if "experts" in self.extras:
            parts.append(expert_shares(outputs.encoder.expert_choice, self.model.config, size))
        if "descriptors" in self.extras:
            parts.append(outputs.encoder.descriptors[..., None, None].expand(-1, -1, *size))
        return torch.cat(parts, 1)


def expert_shares(choice: Tensor, config: CrossEarthSARConfig, size: tuple[int, int]) -> Tensor:
    """Chosen experts (B, D, 1 + h*w, k), CLS first -> share of each among a pixel's choices, (B, n, H, W), sum 1."""
    experts, patch = config.num_experts, config.patch_size
    grid = size[0] // patch, size[1] // patch
    shares = F.one_hot(choice[:, :, 1:], experts).float().mean((1, 3))
    return F.interpolate(shares.transpose(1, 2).unflatten(2, grid), size=size, mode="nearest")

"""The segmentation model: encoder, optional Earth-Adapter or LoRA, and a head (spec sections 1.5 to 1.7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.earth_adapter import EarthAdapter, EarthAdapterSettings
from geospatial.crossearth_sar.heads import FpnHead, LinearHead
from geospatial.crossearth_sar.lora import LoraSettings, add_lora, is_lora, plain_name
from geospatial.crossearth_sar.mask2former_head import Mask2FormerHead, Mask2FormerSettings
from geospatial.crossearth_sar.modeling import CrossEarthSARModel, CrossEarthSAROutput
from geospatial.crossearth_sar.upcycling import spread_over_experts
from geospatial.segmentation_head import SegmentationHead
from mmzoo.errors import InputError, suggestion
from mmzoo.hub.model import ZooModel


@dataclass
class SegmentationOutput(ModelOutput):
    """head: the head's own outputs, for its losses and scores; encoder: the encoder's outputs."""

    head: dict[str, Any] = None  # pyright: ignore[reportAssignmentType]
    encoder: CrossEarthSAROutput = None  # pyright: ignore[reportAssignmentType]


class CrossEarthSARForSegmentation(ZooModel):
    """`forward` gives what training needs, `segment` the class probabilities of each pixel."""

    config_class = CrossEarthSARConfig
    config: CrossEarthSARConfig
    base_model_prefix = "encoder"
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _keep_in_fp32_modules_strict = {"router"}  # noqa: RUF012

    def __init__(self, config: CrossEarthSARConfig, class_weights: Sequence[float] | None = None) -> None:
        if config.class_names is None:
            raise InputError("a segmentation model needs class_names, and its configuration has none. Give them")
        super().__init__(config)
        self.encoder = CrossEarthSARModel(config)
        width, depth = config.hidden_size, config.num_hidden_layers
        adapter = config.earth_adapter
        self.earth_adapter = (
            None if adapter is None else EarthAdapter(width, depth, EarthAdapterSettings.of(dict(adapter)))
        )
        self.head = make_head(config, class_weights)
        if config.lora is not None:
            add_lora(self.encoder, LoraSettings.of(dict(config.lora)))
        self.post_init()

    def forward(
        self, pixel_values: Tensor, descriptors: Tensor | None = None, valid: Tensor | None = None
    ) -> SegmentationOutput:
        """pixel_values (B, 3, H, W), as the image processor gives them; the rest as for the encoder."""
        encoded = self.encoder(pixel_values, descriptors=descriptors, valid=valid, after_block=self.earth_adapter)
        return SegmentationOutput(head=self.head(encoded.feature_maps), encoder=encoded)

    @torch.inference_mode()
    def segment(self, pixel_values: Tensor, descriptors: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """Class probabilities of each pixel, float32 (B, K, H, W)."""
        outputs = self(pixel_values, descriptors=descriptors, valid=valid)
        return self.head.scores(outputs.head, (pixel_values.shape[-2], pixel_values.shape[-1]))

    def freeze_encoder(self) -> None:
        """Leaves the head, the Earth-Adapter and LoRA to be trained."""
        for name, parameter in self.encoder.named_parameters():
            parameter.requires_grad_(is_lora(name))

    def encoder_state(self) -> dict[str, Tensor]:
        """The encoder's own tensors under their plain names, without corrections."""
        return {plain_name(name): value for name, value in self.encoder.state_dict().items() if not is_lora(name)}

    def start_encoder(self, state: dict[str, Tensor]) -> None:
        """Copies an encoder's state; that of a dense one (one expert) goes to every expert, whose routers start anew.

        InputError: other names or shapes.
        """
        own = self.encoder_state()
        state = spread_over_experts(state, own)
        wrong = sorted(own.keys() ^ state.keys()) or [name for name in own if own[name].shape != state[name].shape]
        if wrong:
            raise InputError(
                f"the encoder does not fit: {wrong[0]}. Choose the variant that encoder_from was made with"
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])

    def chosen_methods(self) -> dict[str, str]:
        """Those of the encoder."""
        return self.encoder.chosen_methods()

    def flops(self, tokens: int | None = None) -> int:
        """Operations of the encoder on one image of `tokens` patches; the head is not counted."""
        return self.encoder.flops(tokens)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """The encoder and Mask2Former are given their own starting values; the light heads keep those of torch."""
        if isinstance(module, EarthAdapter):
            module.reset_parameters()


def make_head(config: CrossEarthSARConfig, class_weights: Sequence[float] | None) -> SegmentationHead:
    """The head that a config asks for. InputError: a setting that it does not have."""
    width, classes, given = config.hidden_size, len(config.class_names or ()), dict(config.head_settings or {})
    known = {
        "mask2former": [field.name for field in fields(Mask2FormerSettings)],
        "fpn": ["width"],
        "linear": [],
    }[config.head]
    for name in given:
        if name not in known:
            raise InputError(f"head_settings: a {config.head} head has no {name!r}.{suggestion(name, known)}")
    if config.head == "mask2former":
        return Mask2FormerHead(width, classes, Mask2FormerSettings(**given), class_weights)
    if config.head == "fpn":
        return FpnHead(width, classes, class_weights=class_weights, **given)
    return LinearHead(width, len(config.layers_given), classes, class_weights)

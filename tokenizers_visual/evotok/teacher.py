"""The frozen network whose inner features the semantic read-out learns to reproduce."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmzoo.errors import InputError, suggestion

KINDS = ("transformers", "timm", "mmzoo")


@dataclass(frozen=True)
class TeacherSettings:
    """Which network, and which of its layers.

    source: local folder or Hub id (for timm a model name such as "vit_small_patch16_224.dino"). layer: dotted name of
    the module whose output (B, N, C) or (B, C, h, w) is taken, e.g. "encoder.layers.22". prefix_tokens: class and
    register tokens at the start of the sequence, which are dropped.
    """

    source: str
    layer: str
    kind: str = "transformers"
    prefix_tokens: int = 0
    revision: str | None = None


def _build(settings: TeacherSettings) -> nn.Module:
    if settings.kind == "mmzoo":
        from mmzoo.hub.load import from_pretrained

        return from_pretrained(settings.source, revision=settings.revision)
    try:
        if settings.kind == "timm":
            import timm

            return timm.create_model(settings.source, pretrained=True, num_classes=0)
        from transformers import AutoConfig, AutoModel, SiglipVisionModel

        config = AutoConfig.from_pretrained(settings.source, revision=settings.revision)
        # A SigLIP folder may hold both towers; only the vision half is wanted.
        vision = config.model_type.startswith("siglip")
        loader: Any = SiglipVisionModel if vision else AutoModel
        model, report = loader.from_pretrained(
            settings.source, revision=settings.revision, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as fault:
        raise InputError(
            f"the teacher {settings.source!r} could not be loaded ({type(fault).__name__}). Give a local folder, or a Hub id "
            f"while the network is there: model.teacher.source."
        ) from fault
    if report["missing_keys"] or report["mismatched_keys"]:
        raise InputError(f"the teacher {settings.source} lacks weights, e.g. {sorted(report['missing_keys'])[:3]}.")
    return model


class Teacher(nn.Module):
    """Frozen features at a named layer; never in training mode, never given a gradient."""

    def __init__(self, network: nn.Module, layer: str, prefix_tokens: int = 0) -> None:
        super().__init__()
        modules = dict(network.named_modules())
        if layer not in modules:
            raise InputError(
                f"the teacher has no layer {layer!r}.{suggestion(layer, modules)} Set model.teacher.layer."
            )
        self.network = network.eval().requires_grad_(False)
        self.layer = layer
        self.prefix_tokens = prefix_tokens

    @classmethod
    def load(cls, settings: TeacherSettings) -> Teacher:
        """The teacher that `settings` names; InputError when its weights are absent."""
        if settings.kind not in KINDS:
            raise InputError(f"model.teacher.kind is {settings.kind!r}.{suggestion(settings.kind, KINDS)}")
        return cls(_build(settings), settings.layer, settings.prefix_tokens)

    def train(self, mode: bool = True) -> Teacher:  # noqa: ARG002
        """A teacher stays in evaluation mode whatever its parent does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """images (B, 3, H, W) in [-1, 1], clamped -> features (B, h * w, C) on `grid` (h, w), fp32."""
        kept: list[Any] = []
        hook = dict(self.network.named_modules())[self.layer].register_forward_hook(lambda *call: kept.append(call[2]))
        try:
            self.network(images.clamp(-1.0, 1.0))
        finally:
            hook.remove()
        features = kept[0][0] if isinstance(kept[0], tuple) else kept[0]
        return _on_grid(features.float(), self.prefix_tokens, grid)


def _on_grid(features: Tensor, prefix_tokens: int, grid: tuple[int, int]) -> Tensor:
    """Any token sequence or map -> (B, h * w, C); another square grid is resized bilinearly."""
    if features.ndim == 3:
        features = features[:, prefix_tokens:]
        if features.shape[1] == grid[0] * grid[1]:
            return features
        side = round(features.shape[1] ** 0.5)
        if side * side != features.shape[1]:
            raise InputError(
                f"the teacher gives {features.shape[1]} tokens, no square grid. Set model.teacher.prefix_tokens."
            )
        features = features.transpose(1, 2).reshape(len(features), -1, side, side)
    return F.interpolate(features, size=grid, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)

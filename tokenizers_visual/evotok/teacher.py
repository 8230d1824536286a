"""The frozen network whose inner features the semantic read-out learns to reproduce."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmzoo.durable_files import sha256_of
from mmzoo.errors import InputError, suggestion
from mmzoo.hub.quiet import no_progress_bars

KINDS = ("transformers", "timm", "mmzoo")
LOCAL_TIMM = "local-dir:"  # timm's own prefix of a folder
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")  # timm also reads a local folder's pytorch_model.bin
#: EvoTok's images: values in [-1, 1].
PLAIN = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class TeacherSettings:
    """Which network, and which of its layers.

    source: local folder or Hub id (for timm a model name such as "vit_small_patch16_224.dino", or "local-dir:FOLDER").
    layer: dotted name of the module whose output (B, N, C) or (B, C, h, w) is taken, e.g. "encoder.layers.22".
    prefix_tokens: class and register tokens at the start of the sequence, which are dropped. image_size: px that images
    are resized to for the teacher (None: as they are). mean, std: what its input is normalised by, for pixels in [0, 1]
    (None: what the network's own preprocessing says, else 0.5).
    """

    source: str
    layer: str
    kind: str = "transformers"
    prefix_tokens: int = 0
    revision: str | None = None
    image_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


class _LayerReached(Exception):
    """Ends the teacher's forward pass: what comes after the tapped layer is not wanted."""


class Teacher(nn.Module):
    """Frozen features at a named layer; never in training mode, never given a gradient, never run past the layer."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        prefix_tokens: int = 0,
        *,
        image_size: int | None = None,
        mean: tuple[float, ...] = PLAIN,
        std: tuple[float, ...] = PLAIN,
    ) -> None:
        super().__init__()
        modules = {name: module for name, module in network.named_modules() if name}
        if layer not in modules:
            raise InputError(
                f"the teacher has no layer {layer!r}.{suggestion(layer, modules)} Set model.teacher.layer."
            )
        if prefix_tokens < 0:
            raise InputError(f"model.teacher.prefix_tokens is {prefix_tokens}. Give 0 or more.")
        if image_size is not None and image_size < 1:
            raise InputError(f"model.teacher.image_size is {image_size}. Give the px that the teacher was trained at.")
        if min(std) <= 0:
            raise InputError(f"model.teacher.std is {list(std)}. Give three numbers above 0.")
        self.network = network.eval().requires_grad_(False)
        self.layer = layer
        self.prefix_tokens = prefix_tokens
        self.image_size = image_size
        self.receipt: dict[str, Any] = {}
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def load(cls, settings: TeacherSettings) -> Teacher:
        """The teacher that `settings` names; InputError when its weights are absent."""
        if settings.kind not in KINDS:
            raise InputError(f"model.teacher.kind is {settings.kind!r}.{suggestion(settings.kind, KINDS)}")
        network = _from_zoo(settings) if settings.kind == "mmzoo" else _from_library(settings)
        mean, std = _normalisation(network, settings)
        teacher = cls(
            network, settings.layer, settings.prefix_tokens, image_size=settings.image_size, mean=mean, std=std
        )
        teacher.receipt = {**asdict(settings), **_origin(network, settings), "mean": list(mean), "std": list(std)}
        return teacher

    @torch.no_grad()
    def try_out(self, image_size: int, grid: tuple[int, int]) -> int:
        """Feature channels of one black image (px); InputError when the network cannot take it. Before training."""
        images = torch.full((1, 3, image_size, image_size), -1.0, device=self.mean.device)
        stored_narrow = any(weight.dtype in (torch.bfloat16, torch.float16) for weight in self.network.parameters())
        try:
            with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=stored_narrow):
                return self(images, grid).shape[-1]
        except InputError:
            raise
        except Exception as fault:  # timm asserts, transformers and torch raise their own, for another size or channels
            size = self.image_size or image_size
            raise InputError(
                f"the teacher cannot take images of 3 x {size} x {size} px ({first_line(fault)}). "
                f"Set model.teacher.image_size to its own size, or choose another teacher."
            ) from fault

    def train(self, mode: bool = True) -> Teacher:  # noqa: ARG002
        """A teacher stays in evaluation mode whatever its parent does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """images (B, 3, H, W) in [-1, 1], clamped -> features (B, h * w, C) on `grid` (h, w), fp32."""
        images = images.clamp(-1.0, 1.0)
        if self.image_size is not None and images.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            images = F.interpolate(images, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(-1, 1)
        return _on_grid(self._tap(((images + 1) / 2 - self.mean) / self.std).float(), self.prefix_tokens, grid)

    def _tap(self, pixels: Tensor) -> Tensor:
        kept: list[Any] = []

        def keep(*call: Any) -> None:
            kept.append(call[2])
            raise _LayerReached

        hook = self.network.get_submodule(self.layer).register_forward_hook(keep)
        try:
            self.network(pixels)
        except _LayerReached:
            pass
        finally:
            hook.remove()
        if not kept:
            raise InputError(f"the teacher's layer {self.layer!r} takes no part in its forward pass. Name another.")
        features = kept[0][0] if isinstance(kept[0], tuple) else kept[0]
        if not isinstance(features, Tensor) or features.ndim not in (3, 4):
            given = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise InputError(
                f"the teacher's layer {self.layer!r} gives {given}, not features (B, N, C) or (B, C, h, w). "
                f"Name another: model.teacher.layer."
            )
        return features


def _from_zoo(settings: TeacherSettings) -> nn.Module:
    from mmzoo.hub.load import from_pretrained

    return from_pretrained(settings.source, revision=settings.revision)


def _from_library(settings: TeacherSettings) -> nn.Module:
    """A timm or transformers model with its weights, all of them, or InputError."""
    try:
        if settings.kind == "timm":
            import timm

            if settings.source.startswith(LOCAL_TIMM):
                refuse_absent_folder(settings.source.removeprefix(LOCAL_TIMM))
            return timm.create_model(settings.source, pretrained=True, num_classes=0)
        return load_transformers_tower(settings.source, settings.revision)
    except InputError:
        raise
    # Libraries raise OSError, ValueError, RuntimeError, safetensors' and the Hub client's own types for "not there".
    except Exception as fault:
        raise InputError(
            f"the teacher {settings.source!r} could not be loaded ({first_line(fault)}). "
            f"Give a local folder, or a Hub id while the network is there: model.teacher.source."
        ) from fault


def first_line(fault: Exception, length: int = 160) -> str:
    """What a library says, short: its type and the start of its message."""
    text = next(iter(str(fault).strip().splitlines()), "").strip()
    return f"{type(fault).__name__}: {text[:length]}{'...' if len(text) > length else ''}".removesuffix(": ")


def model_part(source: str) -> str:
    """The `model/` of a checkpoint folder; anything else as it is."""
    folder = Path(source).expanduser()
    inside = (folder / "model" / "config.json").is_file() and not (folder / "config.json").is_file()
    return str(folder / "model") if inside else source


def refuse_absent_folder(source: str) -> None:
    """InputError for a folder that is not there: asked for it, the Hub's client would try for half a minute."""
    if not Path(source).expanduser().is_dir():
        raise InputError(f"there is no folder {source}. Give an existing one, or a Hub id such as owner/name.")


def load_transformers_tower(source: str, revision: str | None = None) -> nn.Module:
    """A transformers model from safetensors; of a SigLIP the vision half. InputError when weights are missing."""
    from transformers import AutoConfig, AutoModel, SiglipVisionModel

    source = model_part(source)
    if source.count("/") != 1 or source.startswith(("/", ".", "~")):  # no Hub id looks so
        refuse_absent_folder(source)
    config = AutoConfig.from_pretrained(source, revision=revision)
    # A SigLIP folder may hold both towers; only the vision half is wanted.
    loader: Any = SiglipVisionModel if config.model_type.startswith("siglip") else AutoModel
    with no_progress_bars():
        model, report = loader.from_pretrained(
            source, revision=revision, use_safetensors=True, output_loading_info=True
        )
    lacking = sorted([*report["missing_keys"], *(str(entry[0]) for entry in report["mismatched_keys"])])
    if lacking:
        raise InputError(f"the network {source} lacks weights, e.g. {', '.join(lacking[:3])}. Give a complete folder.")
    return model


def _normalisation(network: nn.Module, settings: TeacherSettings) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the input for pixels in [0, 1]: the user's, else the network's own, else 0.5."""
    own: dict[str, Any] = {}
    if settings.kind == "timm":
        own = dict(getattr(network, "pretrained_cfg", None) or {})
    elif settings.kind == "transformers":
        own = _preprocessor_config(settings)
    mean = settings.mean or own.get("mean") or own.get("image_mean") or PLAIN
    std = settings.std or own.get("std") or own.get("image_std") or PLAIN
    return tuple(map(float, mean)), tuple(map(float, std))


def _preprocessor_config(settings: TeacherSettings) -> dict[str, Any]:
    from transformers.utils.hub import cached_file

    file = cached_file(
        model_part(settings.source),
        "preprocessor_config.json",
        revision=settings.revision,
        _raise_exceptions_for_missing_entries=False,
    )
    return json.loads(Path(file).read_text(encoding="utf-8")) if file else {}


def _origin(network: nn.Module, settings: TeacherSettings) -> dict[str, Any]:
    """Where the weights came from: sha256 of a local folder's files, else the commit that the Hub named."""
    folder = Path(model_part(settings.source.removeprefix(LOCAL_TIMM))).expanduser()
    if folder.is_dir():
        weights = [file for file in sorted(folder.iterdir()) if file.suffix in WEIGHT_SUFFIXES]
        return {"files": {file.name: sha256_of(file) for file in weights}}
    return {"commit": getattr(getattr(network, "config", None), "_commit_hash", None)}


def _on_grid(features: Tensor, prefix_tokens: int, grid: tuple[int, int]) -> Tensor:
    """Any token sequence or map -> (B, h * w, C); another square grid is resized bilinearly."""
    if features.ndim == 3:
        features = features[:, prefix_tokens:]
        if features.shape[1] == grid[0] * grid[1]:
            return features
        side = round(features.shape[1] ** 0.5)
        if side * side != features.shape[1] or side == 0:
            raise InputError(
                f"the teacher gives {features.shape[1]} tokens after {prefix_tokens} are dropped, no square grid. "
                f"Set model.teacher.prefix_tokens."
            )
        features = features.transpose(1, 2).reshape(len(features), -1, side, side)
    return F.interpolate(features, size=grid, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)

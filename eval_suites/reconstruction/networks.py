"""The networks that judge beside PSNR and SSIM: loaded where their weights are, and otherwise the reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from eval_suites.metrics.inception import Inception
from eval_suites.metrics.lpips import SOURCES, Lpips
from eval_suites.metrics.weights_file import NotMeasuredError
from eval_suites.reconstruction.settings import Settings


class SemanticTeacher(Protocol):
    """What a semantic read-out was taught by: images (B, 3, H, W) in [-1, 1], grid (h, w) -> features (B, h * w, C)."""

    def __call__(self, images: Tensor, grid: tuple[int, int], /) -> Tensor: ...


@dataclass
class Networks:
    """`lpips` by backbone; `absent`: metric name -> why it is not measured."""

    lpips: dict[str, Lpips] = field(default_factory=dict)
    inception: Inception | None = None
    teacher: SemanticTeacher | None = None
    absent: dict[str, str] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """For the record: what each network is, None where there is none."""
        found: dict[str, Any] = {f"lpips_{name}": None for name in SOURCES}
        found |= {f"lpips_{name}": one.description for name, one in self.lpips.items()}
        found["rfid"] = self.inception.description if self.inception else None
        found["semantic_teacher"] = _describe_teacher(self.teacher)
        return found


def open_networks(settings: Settings, model: Any, options: Mapping[str, Any], device: torch.device | str) -> Networks:
    """Loads what there are weights for. InputError: a file that was named is absent or is not those weights.

    The teacher is `options["teacher"]`, else the model's own attribute `teacher`.
    """
    networks, weights = Networks(), settings.weights or {}
    side = settings.resize.size if settings.resize.how == "square" else None
    for name, source in SOURCES.items():
        try:
            if side is not None and side < source.least_side:
                raise NotMeasuredError(f"images of {side} px, and it needs {source.least_side} px")
            networks.lpips[name] = Lpips.load(name, weights.get(name), device)
        except NotMeasuredError as reason:
            networks.absent[f"lpips_{name}"] = str(reason)
    try:
        networks.inception = Inception.load(weights.get("inception"), device)
    except NotMeasuredError as reason:
        networks.absent["rfid"] = str(reason)
    teacher = options.get("teacher") or getattr(model, "teacher", None)
    if not callable(getattr(model, "decode_semantics", None)):
        networks.absent["semantic_cosine"] = "the model has no semantic read-out"
    elif teacher is None:
        networks.absent["semantic_cosine"] = "the model's teacher is not at hand: name it with --teacher"
    else:
        networks.teacher = teacher
    return networks


def _describe_teacher(teacher: SemanticTeacher | None) -> dict[str, Any] | None:
    """Its receipt without the path that it came from, else the name of its class."""
    if teacher is None:
        return None
    receipt = getattr(teacher, "receipt", None) or {}
    return {"class": type(teacher).__name__, **{name: receipt[name] for name in receipt if name != "source"}}

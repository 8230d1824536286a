"""Segmentation models as voters: ours, or any that transformers' AutoModelForSemanticSegmentation can load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from geospatial.class_masks import IGNORE
from geospatial.crossearth_sar.blocks import BANDS
from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from geospatial.crossearth_sar.scaling import normalized
from geospatial.crossearth_sar.segmentation_model import CrossEarthSARForSegmentation
from mmzoo.errors import InputError
from mmzoo.families import find_families
from mmzoo.hub.device import usable_device
from mmzoo.hub.load import from_pretrained
from mmzoo.hub.quiet import no_progress_bars
from mmzoo.hub.source import find_source, read_model_type


class Segmenter(Protocol):
    """A voter. `classes`: how many it tells apart."""

    classes: int

    def probabilities(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Class probabilities float32 (K, H, W) of a raster (C, H, W), 0 where not `valid` (H, W)."""
        ...

    def check_domain(self, domain: str, path: Path) -> None:
        """InputError: the model does not take values of this domain."""
        ...


class OwnSegmenter:
    """A segmentation model of this family."""

    def __init__(self, model: CrossEarthSARForSegmentation) -> None:
        self.model = model.eval()
        self.classes = len(model.config.class_names or ())

    def probabilities(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """See Segmenter."""
        if len(values) not in (1, BANDS):
            raise InputError(
                f"the model takes 1 or {BANDS} bands, the raster gives {len(values)}. Choose some: --bands"
            )
        device = self.model.device
        known = torch.from_numpy(valid)[None].to(device)
        image = torch.from_numpy(values)[None].expand(-1, BANDS, -1, -1).to(device)
        return self.model.segment(normalized(image, known, self.model.config), valid=known)[0].cpu().numpy()

    def check_domain(self, domain: str, path: Path) -> None:
        """See Segmenter."""
        if domain != self.model.config.domain:
            raise InputError(f"{path} holds {domain} values, the model takes {self.model.config.domain}. Convert them")


class TransformersSegmenter:
    """A model of transformers with its image processor; it sees 8-bit RGB pictures."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model.eval(), processor
        self.classes = int(model.config.num_labels)

    @torch.inference_mode()
    def probabilities(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:  # noqa: ARG002 - it knows no holes
        """See Segmenter."""
        if len(values) not in (1, BANDS):
            raise InputError(
                f"the model takes 1 or {BANDS} bands, the raster gives {len(values)}. Choose some: --bands"
            )
        picture = np.moveaxis(np.broadcast_to(values, (BANDS, *values.shape[1:])), 0, -1).clip(0, 255).astype(np.uint8)
        inputs = self.processor(images=picture, return_tensors="pt").to(self.model.device)
        logits = self.model(**inputs).logits
        size = values.shape[1:]
        enlarged = torch.nn.functional.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
        return enlarged.softmax(1)[0].cpu().numpy()

    def check_domain(self, domain: str, path: Path) -> None:
        """See Segmenter."""
        if domain != "display8":
            raise InputError(f"{path} holds {domain} values; this model sees 8-bit pictures. Give display8 ones")


def load_segmenters(
    sources: Sequence[str], device: str, remap: Mapping[int, int] | None = None
) -> list[OwnSegmenter | TransformersSegmenter]:
    """The voters. InputError: one cannot be loaded, they have other classes, or `remap` names classes they lack."""
    place = usable_device(device)
    members = [_loaded(source, place) for source in sources]
    classes = members[0].classes
    for source, member in zip(sources, members, strict=True):
        if member.classes != classes:
            raise InputError(f"{source} has {member.classes} classes, {sources[0]} {classes}. Voters need the same")
    if classes >= IGNORE:
        raise InputError(f"{sources[0]} has {classes} classes; labels hold fewer than {IGNORE}")
    absent = [number for number in remap or () if not 0 <= number < classes]
    if absent:
        raise InputError(f"--remap names class {absent[0]}; {sources[0]} has classes 0 to {classes - 1}")
    return members


def _loaded(source: str, device: torch.device) -> OwnSegmenter | TransformersSegmenter:
    found = find_source(source)
    kind = read_model_type(found.folder)
    entry = find_families().get(str(kind))
    if entry and kind != CrossEarthSARConfig.model_type:
        raise InputError(
            f"{source} is {kind} ({entry.family.task}). Give a segmentation model, such as a run's checkpoint"
        )
    try:
        if kind == CrossEarthSARConfig.model_type:
            model = from_pretrained(source, quiet=True)
            if not isinstance(model, CrossEarthSARForSegmentation):
                raise InputError(f"{source} is an encoder alone. Give a segmentation model, such as a run's checkpoint")
            return OwnSegmenter(model.to(device))  # pyright: ignore[reportArgumentType]
        return _from_transformers(found.folder, device)
    except (OSError, ValueError, RuntimeError, ImportError) as fault:
        if isinstance(fault, InputError):
            raise
        reason = " ".join(str(fault).split())[:300]
        raise InputError(f"{source} cannot be loaded as a segmentation model ({reason}). Check --model") from fault


def _from_transformers(folder: Path, device: torch.device) -> TransformersSegmenter:
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

    with no_progress_bars():
        model = AutoModelForSemanticSegmentation.from_pretrained(folder, use_safetensors=True)
        return TransformersSegmenter(model.to(device), AutoImageProcessor.from_pretrained(folder))

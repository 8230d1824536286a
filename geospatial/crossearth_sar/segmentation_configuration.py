"""Configuration of the segmentation model: the encoder's, and what stands on it."""

from __future__ import annotations

from typing import Any

from geospatial.crossearth_sar.configuration import CrossEarthSARConfig
from mmzoo.errors import InputError, suggestion

HEADS = ("mask2former", "fpn", "linear")


class CrossEarthSARSegmentationConfig(CrossEarthSARConfig):
    """class_names: in the order of the outputs. head: one of HEADS; head_settings: of Mask2FormerSettings, or `width`
    of the FPN. earth_adapter: of EarthAdapterSettings (None: no adapter). lora: of LoraSettings (None: none).
    """

    class_names: list[str] | tuple[str, ...] = ("background", "foreground")
    head: str = "mask2former"
    head_settings: dict[str, Any] | None = None
    earth_adapter: dict[str, Any] | None = None
    lora: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.head not in HEADS:
            raise InputError(f"head is {self.head!r}.{suggestion(str(self.head), HEADS)} Heads: {', '.join(HEADS)}")
        self.class_names = [str(name) for name in self.class_names]
        if not self.class_names or len(set(self.class_names)) < len(self.class_names):
            raise InputError(f"class_names must be at least one name, each once, not {self.class_names}")
        # transformers' own names, which its pipelines read
        kwargs.setdefault("id2label", dict(enumerate(self.class_names)))
        kwargs.setdefault("label2id", {name: number for number, name in enumerate(self.class_names)})
        super().__post_init__(**kwargs)

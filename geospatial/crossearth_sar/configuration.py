"""CrossEarth-SAR's configuration: flat, so that a YAML line names what it changes."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

from geospatial.crossearth_sar.setting_checks import check_settings
from mmzoo.errors import InputError, suggestion

#: Where the four maps for a decoder are taken, as shares of the depth: blocks 7, 11, 15, 23 of 24 (spec section 1.2).
FEATURE_DEPTHS = (1 / 3, 1 / 2, 2 / 3, 1.0)


class CrossEarthSARConfig(PretrainedConfig):
    """Sizes and choices of the encoder (spec sections 1 and 9). Defaults are the published size S.

    The network sees images (B, 3, H, W): raster values, mapped from `value_range` to 0..1, minus `image_mean`, divided
    by `image_std`.
    """

    model_type = "crossearth_sar"

    image_size: int = 512  #: px, the size that the position table is made for; other sizes interpolate it
    patch_size: int = 16  #: px
    # DINOv2 vision transformer
    hidden_size: int = 384
    num_hidden_layers: int = 12
    num_attention_heads: int = 6
    mlp_ratio: int = 4
    layer_norm_eps: float = 1e-6
    layerscale_value: float = 1e-5  #: start of the learnt scales that end each branch
    feature_layers: list[int] | tuple[int, ...] | None = None  #: blocks, from 0, whose maps are given out
    # Experts
    num_experts: int = 6
    experts_per_token: int = 1
    gate: str = "ste"  #: "renorm" is the published formula, with which one expert a token teaches its router nothing
    router_std: float = 0.02  #: of the router's starting weights; its bias starts at 0
    expert_method: str = "auto"  #: mmzoo.ops.expert_table: "auto", "loop", "grouped"
    # Rasters
    domain: str = "display8"  #: what raster values are: geospatial.sar.domains
    value_range: list[float] | tuple[float, ...] = (0.0, 255.0)  #: raster values that become 0 and 1
    image_mean: list[float] | tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: list[float] | tuple[float, ...] = (0.229, 0.224, 0.225)
    # Physical descriptors
    #: "image" 0..1 and "network" (normalised): ln(1 + |X|); "raster": as `domain` says; "none": zeros, tokens alone
    descriptor_input: str = "image"
    descriptor_scaling: str = "log"  #: "none": as they are, and the looks dwarf the other two
    descriptor_bins: int = 16
    descriptor_block: int = 16  #: px
    descriptor_band: int | str = "mean"  #: 1, 2 or 3 of the network's bands, or "mean"

    # What stands on the encoder in CrossEarthSARForSegmentation
    class_names: list[str] | tuple[str, ...] | None = None  #: in the order of the outputs; None: an encoder alone
    head: str = "mask2former"  #: "mask2former" is the published one; "fpn", "linear"
    head_settings: dict[str, Any] | None = None  #: of mask2former_head.Mask2FormerSettings, or `width` of the FPN
    earth_adapter: dict[str, Any] | None = None  #: of earth_adapter.EarthAdapterSettings; None: no adapter
    lora: dict[str, Any] | None = None  #: of lora.LoraSettings; None: none

    def __post_init__(self, **kwargs: Any) -> None:
        check_settings(self)
        depth = self.num_hidden_layers
        self.feature_layers = (
            [max(0, round(share * depth) - 1) for share in FEATURE_DEPTHS]
            if self.feature_layers is None
            else list(self.feature_layers)
        )
        for name in ("value_range", "image_mean", "image_std"):
            setattr(self, name, [float(value) for value in getattr(self, name)])
        if self.class_names is not None:
            self.class_names = [str(name) for name in self.class_names]
            # transformers' own names, which its pipelines read
            kwargs["id2label"] = dict(enumerate(self.class_names))
            kwargs["label2id"] = {name: number for number, name in enumerate(self.class_names)}
        super().__post_init__(**kwargs)
        self._check_together()

    def _check_together(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}."
            )
        if self.experts_per_token > self.num_experts:
            raise InputError(f"experts_per_token is {self.experts_per_token} of num_experts {self.num_experts}.")
        names = self.class_names
        if names is not None and (not names or len(set(names)) < len(names)):
            raise InputError(f"class_names must be at least one name, each once, not {names}.")
        if self.image_size < self.patch_size:
            raise InputError(f"image_size {self.image_size} is less than patch_size {self.patch_size}.")
        wrong = [layer for layer in self.layers_given if not 0 <= layer < self.num_hidden_layers]
        if wrong or not self.layers_given:
            raise InputError(
                f"feature_layers {self.layers_given} must name blocks from 0 to {self.num_hidden_layers - 1}."
            )

    @property
    def layers_given(self) -> list[int]:
        """`feature_layers`, filled in."""
        return list(self.feature_layers or ())

    @property
    def grid_size(self) -> int:
        """Patches per side at `image_size`; the stride drops the remainder."""
        return self.image_size // self.patch_size

    @property
    def expert_width(self) -> int:
        """Hidden units of one expert."""
        return self.mlp_ratio * self.hidden_size


def checked_config(values: dict[str, Any], where: str) -> CrossEarthSARConfig:
    """A configuration from plain values. transformers accepts any key silently, so unknown ones are refused here."""
    known = setting_names()
    for name in values:
        if name not in known:
            raise InputError(f"{where}: {name!r} is not a setting of CrossEarth-SAR.{suggestion(name, known)}")
    return CrossEarthSARConfig(**values)


def setting_names() -> list[str]:
    """The settings of our own, without those that every transformers configuration has."""
    return [name for name in CrossEarthSARConfig.__annotations__ if not name.startswith("_")]

"""Low-rank corrections of the encoder's attention, through peft (an optional package: pip install mmzoo[lora])."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from mmzoo.errors import InputError, suggestion

#: The linear layers of `blocks.Attention`.
ATTENTION = ("query", "key", "value", "projection")


@dataclass(frozen=True)
class LoraSettings:
    """rank: of the corrections; alpha: they are scaled by alpha / rank; layers: which of ATTENTION they correct."""

    rank: int = 8
    alpha: int = 16
    layers: list[str] = field(default_factory=lambda: ["query", "value"])

    @classmethod
    def of(cls, given: dict[str, Any]) -> LoraSettings:
        """From a config's dict. InputError: unknown names, layers or numbers that cannot be."""
        known = [each.name for each in fields(cls)]
        for name in given:
            if name not in known:
                raise InputError(f"lora has no setting {name!r}.{suggestion(name, known)}")
        settings = cls(**given)
        for layer in settings.layers:
            if layer not in ATTENTION:
                raise InputError(f"lora: there is no layer {layer!r}.{suggestion(layer, ATTENTION)}")
        if settings.rank < 1 or settings.alpha <= 0 or not settings.layers:
            raise InputError(f"lora: rank {settings.rank}, alpha {settings.alpha} or layers {settings.layers} is wrong")
        return settings


def add_lora(encoder: nn.Module, settings: LoraSettings) -> None:
    """Puts the corrections into `encoder`; they start at 0, and everything else is frozen.

    InputError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError:
        raise InputError("lora needs the package peft. Install it: pip install 'mmzoo[lora]'") from None
    targets = [f"attention.{layer}" for layer in settings.layers]
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=targets)
    inject_adapter_in_model(config, encoder)


def plain_name(name: str) -> str:
    """Name of a parameter of an encoder with corrections, as the encoder without them calls it."""
    return name.replace(".base_layer.", ".")


def is_lora(name: str) -> bool:
    """Whether a parameter belongs to the corrections."""
    return ".lora_" in name

"""Each setting alone: transformers takes any value, and the fault would show deep inside torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mmzoo.errors import InputError, suggestion

if TYPE_CHECKING:
    from geospatial.crossearth_sar.configuration import CrossEarthSARConfig

#: The words that a setting may be. `domain` and `expert_method` are known to torch code and named here as well, so that
#: a configuration can be read without it; a test holds the lists together.
WORDS: dict[str, tuple[str, ...]] = {
    "gate": ("renorm", "prob", "ste"),
    "expert_method": ("auto", "loop", "grouped"),
    "domain": ("log1p", "intensity", "amplitude", "db", "display8"),
    "head": ("mask2former", "fpn", "linear"),
    "descriptor_input": ("image", "network", "raster", "none"),
    "descriptor_scaling": ("none", "log"),
}
BANDS = 3  #: of the network's input


def _whole(value: Any, lowest: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(value: Any, count: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(map(_number, value))


def _band(value: Any) -> bool:
    return value == "mean" or (_whole(value) and value <= BANDS)


def _layers(value: Any) -> bool:
    return value is None or (isinstance(value, list | tuple) and all(_whole(layer, 0) for layer in value))


SPECIAL: dict[str, tuple[Callable[[Any], bool], str]] = {
    "feature_layers": (_layers, "a list of block numbers from 0 up, or null for the usual four"),
    "value_range": (lambda value: _numbers(value, 2) and value[0] < value[1], "two numbers, the lower first"),
    "image_mean": (lambda value: _numbers(value, BANDS), f"{BANDS} numbers"),
    "image_std": (lambda value: _numbers(value, BANDS) and min(value) > 0, f"{BANDS} numbers above 0"),
    "descriptor_band": (_band, "1, 2, 3 or 'mean'"),
    "descriptor_bins": (lambda value: _whole(value, 2), "a whole number from 2 up"),
}


def check_settings(config: CrossEarthSARConfig) -> None:
    """InputError that names the first setting whose value cannot be."""
    for name, annotation in type(config).__annotations__.items():
        value = getattr(config, name, None)
        wanted = _wanted(name, str(annotation), value)
        if wanted is not None:
            raise InputError(f"{name} is {value!r}. Give {wanted}.")


def _wanted(name: str, annotation: str, value: Any) -> str | None:
    """What a setting should be, in words; None when `value` is that."""
    if name in WORDS:
        known = WORDS[name]
        return None if value in known else f"one of {', '.join(known)}.{suggestion(str(value), known)}".rstrip(".?")
    if name in SPECIAL:
        sound, words = SPECIAL[name]
        return None if sound(value) else words
    if annotation == "int":
        return None if _whole(value) else "a whole number from 1 up"
    if annotation == "float":
        return None if _number(value) and value >= 0 else "a number from 0 up"
    return None

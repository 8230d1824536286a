"""What a user may choose of the suite, read from words; light, since every `mmzoo --help` imports it."""

from __future__ import annotations

from pathlib import Path

from eval_suites.description import Option, whole_numbers
from mmzoo.errors import InputError


def read_count(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{text!r}: give a whole number from 1 up.")
    return int(text)


def read_bands(text: str) -> tuple[int, ...]:
    """ "1" or "1,2,3": bands in their order, counted from 1."""
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"{text!r}: give band numbers from 1 up, e.g. 1 or 1,2,3.")
    return tuple(map(int, parts))


def read_share(text: str) -> float:
    """A number above 0, at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise InputError(f"{text!r}: give a share above 0 and up to 1, e.g. 0.02.")
    return value


OPTIONS = (
    Option("source", "list or folder of the domain that was trained on: adds @source and the drops", Path),
    Option("classes", "JSON or YAML file {id in the masks: name} (default: 0, 1, ... in the model's order)", Path),
    Option("ignore", "ids that mean not labelled (default 255)", whole_numbers),
    Option("bands", "bands that the model sees, counted from 1 (default: all)", read_bands),
    Option("domain", "of the values, where the files do not say: log1p, intensity, amplitude, db, display8", str),
    Option("group", "regex with a group over raster names: what is resampled together", str),
    Option("window", "px a side of what the model sees at once (default: its image_size)", read_count),
    Option("batch", "windows at once (default 16)", read_count),
    Option("boundary", "width of a boundary as a share of the raster's diagonal (default 0.02)", read_share),
)

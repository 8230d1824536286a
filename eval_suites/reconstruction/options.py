"""What a user may choose of the suite, read from words; light, since every `mmzoo --help` imports it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from eval_suites.description import Option, whole_numbers
from mmzoo.errors import InputError

LONGEST_NUMBER = 9  #: digits; what is too large beyond any doubt
MOST_AT_ONCE = 4096  #: images in a batch


def read_resize(text: str) -> tuple[Literal["none", "crop", "square"], int | None]:
    """ "none", "crop16" (the largest multiple of 16 px) or "256" (shorter side and centre crop): see resize.py."""
    if text == "none":
        return "none", None
    number = text.removeprefix("crop")
    if not number.isdecimal():
        raise InputError(f"{text!r}: give none, crop16 (the largest multiple of 16 px), or px such as 256.")
    if len(number) > LONGEST_NUMBER:
        raise InputError(f"{number[:LONGEST_NUMBER]}...: give at most so many digits as an image has px.")
    return ("square" if number == text else "crop"), int(number)


def read_codecs(text: str) -> tuple[str, ...]:
    """ "jpeg,webp", or "none"."""
    return () if text == "none" else tuple(sorted(set(text.split(","))))


def read_count(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdecimal() or not text.strip("0"):
        raise InputError(f"{text!r}: give a whole number from 1 up.")
    if len(text) > LONGEST_NUMBER or int(text) > MOST_AT_ONCE:
        raise InputError(f"{text[:LONGEST_NUMBER]}: give at most {MOST_AT_ONCE}.")
    return int(text)


OPTIONS = (
    Option(
        "levels", "numbers of decoded levels (default: 1, 2, 4, ... up to those the pixels train on)", whole_numbers
    ),
    Option(
        "resize",
        "none, crop16 (multiples of 16 px), or px: shorter side, centre crop (default: image_size)",
        read_resize,
    ),
    Option(
        "codecs",
        "jpeg,webp: codecs at the same bits (default: none; they cost a tenth of a second an image)",
        read_codecs,
    ),
    Option("teacher", "folder or Hub id of the network that taught the semantic read-out, for semantic_cosine", str),
    Option("group", "regex with a group over the paths of a folder: what is resampled together", str),
    Option("batch", "images at once (default 16)", read_count),
    Option("vgg", "file of VGG16's weights, for LPIPS (default: torch's cache)", Path),
    Option("alex", "file of AlexNet's weights, for LPIPS (default: torch's cache)", Path),
    Option("inception", "file of Inception's weights, for rFID (default: torch's cache)", Path),
)

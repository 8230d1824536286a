"""Sizes in bytes as people write them."""

from __future__ import annotations

import re

from mmzoo.errors import InputError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def byte_size(text: str) -> int:
    """Bytes of "256MB", "1GiB", "4096". InputError otherwise."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip(), re.IGNORECASE)
    unit = UNITS.get(match.group(2).upper()) if match else None
    if match is None or unit is None:
        raise InputError(f"{text!r} is not a size. Write for example 256MB or 1GiB")
    return int(float(match.group(1)) * unit)

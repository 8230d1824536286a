"""In which domain the values of a raster are: the user says, or the file does; it is never guessed (decisions, SAR)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geospatial.sar.domains import DOMAINS
from mmzoo.errors import InputError, suggestion

#: The tag of a band or of the file, and the key in the sidecar `RASTER.json`, that name the domain.
DOMAIN_TAG = "domain"


def checked_domain(name: str, where: str) -> str:
    """`name` in lower case. InputError: no domain of ours; `where` says who named it."""
    found = name.strip().lower()
    if found not in DOMAINS:
        known = ", ".join(DOMAINS)
        raise InputError(f"{where} names the domain {name!r}.{suggestion(found, DOMAINS)} Domains: {known}")
    return found


def sidecar_of(path: Path) -> Path:
    """`scene.tif` -> `scene.tif.json`, the file beside a raster that may name its domain."""
    return path.with_name(f"{path.name}.json")


def find_domain(path: Path, wanted: str | None, tags: Mapping[str, Mapping[str, str]]) -> str:
    """The domain of a raster: the one asked for, else that of the tags (of the bands, then of the file), else that of
    the sidecar.

    `tags`: {"band 1": {...}, ..., "file": {...}}; keys in any case. InputError: nobody says, or bands disagree.
    """
    if wanted is not None:
        return checked_domain(wanted, "the domain setting")
    named: dict[str, str] = {}
    for place, pairs in tags.items():
        for key, value in pairs.items():
            if key.lower() == DOMAIN_TAG and value:
                named[place] = checked_domain(value, f"{path}: a tag of {place}")
    of_bands = {value for place, value in named.items() if place != "file"}
    if len(of_bands) > 1:
        listed = ", ".join(f"{place}: {value}" for place, value in named.items())
        raise InputError(f"{path}: its bands are in several domains ({listed}). Choose bands of one, or set domain")
    for found in (*of_bands, named.get("file"), _sidecar_domain(path)):
        if found is not None:
            return found
    raise InputError(
        f"{path} does not say in which domain its values are, and it is not guessed. Set domain to one of "
        f"{', '.join(DOMAINS)}, or tag the file with the right one of them: rio edit-info {path} --tag domain=NAME"
    )


def _sidecar_domain(path: Path) -> str | None:
    file = sidecar_of(path)
    if not file.is_file():
        return None
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise InputError(f"{file} cannot be read ({fault}). Mend it, or set domain") from None
    value = content.get(DOMAIN_TAG) if isinstance(content, dict) else None
    return checked_domain(value, str(file)) if isinstance(value, str) else None

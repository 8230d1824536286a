"""Oriented boxes in the layout of DOTA: `<name>.txt` for `<name>.png`, one object a line.

`x1 y1 x2 y2 x3 y3 x4 y4 category difficult`, in px; `imagesource:` and `gsd:` may stand before. Difficult objects
(1 or 2) are marked `ignore`; `meta.difficult` keeps the numbers as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_engine.sources.image_folder import IMAGE_SUFFIXES
from data_engine.sources.source import Source, files_by_stem, paired
from data_engine.stored_sample import Region, StoredFile, StoredSample
from mmzoo.errors import InputError

HEADERS = ("imagesource", "gsd")


@dataclass(frozen=True, kw_only=True)
class DotaSource(Source):
    """`labels`, `images`: folders. Every image has a label file, an empty one where it shows no object."""

    labels: Path
    images: Path

    def samples(self) -> Iterator[StoredSample]:
        """See Source."""
        pictures = files_by_stem(self.images, "images", IMAGE_SUFFIXES)
        labels = files_by_stem(self.labels, "label files", {".txt"})
        paired(pictures, labels, "label files", self.labels)
        for number, (stem, path) in enumerate(pictures.items(), 1):
            regions, meta = read_labels(self.labels / labels[stem])
            file = StoredFile(path, self.images / path)
            yield self.sample(number, labels[stem], images=(file,), regions=regions, meta=meta)


def read_labels(file: Path) -> tuple[tuple[Region, ...], dict[str, Any]]:
    """The objects of a label file, and its headers. InputError, with file and line: not in this layout."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise InputError(f"cannot read {file}: {fault}") from None
    regions: list[Region] = []
    difficult: list[int] = []
    meta: dict[str, Any] = {}
    for number, line in enumerate(lines, 1):
        name, colon, value = line.partition(":")
        if not line.strip():
            continue
        if colon and not regions and name in HEADERS:
            meta[name] = value.strip()
            continue
        region, level = _object(f"{file}:{number}", line.split())
        regions.append(region)
        difficult.append(level)
    return tuple(regions), {**meta, "difficult": difficult} if any(difficult) else meta


def _object(place: str, words: list[str]) -> tuple[Region, int]:
    if len(words) not in (9, 10):
        raise InputError(f"{place}: {len(words)} words; eight coordinates, a category and difficult (0 to 2) are due")
    try:
        numbers = [float(word) for word in words[:8]]
        level = int(words[9]) if len(words) == 10 else 0
    except ValueError as fault:
        raise InputError(f"{place}: {fault}") from None
    if not all(map(math.isfinite, numbers)) or level not in (0, 1, 2):
        raise InputError(f"{place}: a coordinate is not finite, or difficult is not 0, 1 or 2")
    a, b, c, d = zip(numbers[::2], numbers[1::2], strict=True)
    return Region(label=words[8], quad=(a, b, c, d), ignore=level > 0), level

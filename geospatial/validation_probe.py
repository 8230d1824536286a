"""Whether a validation could say anything: found before the first step, not after hours at the first validation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from geospatial.class_masks import IGNORE
from geospatial.raster import Window
from geospatial.raster_index import Entry, RasterIndex, Scene, own_tiles
from mmzoo.errors import InputError

#: Tiles that are looked at. One is enough of almost every set; one that needs more is left to its first validation.
MOST_TILES = 2000


def refuse_nothing_to_validate(index: RasterIndex, role: str) -> None:
    """InputError: no validation raster of this role has a labelled pixel with data, in all of its tiles."""
    entries = [one for one in index.entries if one.pair.split == "val" and index.sources[one.source].role == role]
    looked = 0
    for entry, windows in [*((one, _middle(one, index.window)) for one in entries), *((one, None) for one in entries)]:
        scene = Scene(entry.pair, index.sources[entry.source], index.table)
        try:
            for window in windows or _all(entry, index.window):
                looked += 1
                if looked > MOST_TILES or _says_something(scene, window):
                    return
        finally:
            scene.close()
    if entries:
        raise InputError(
            f"none of the {len(entries)} validation rasters of the {role} domain has a labelled pixel with data, for "
            f"example {entries[0].pair.image} with {entries[0].pair.mask}. Mend them, or validate on others: "
            f"val_fraction, or split in the list"
        )


def _middle(entry: Entry, size: int) -> list[Window]:
    """The middle tile: of a scene with an empty rim the one that has most to say."""
    height, width = min(size, entry.height), min(size, entry.width)
    return [Window((entry.height - height) // 2, (entry.width - width) // 2, height, width)]


def _all(entry: Entry, size: int) -> Iterator[Window]:
    return (tile.window for tile in own_tiles(entry.height, entry.width, size))


def _says_something(scene: Scene, window: Window) -> bool:
    try:
        return bool(np.any((scene.labels(window) != IGNORE) & scene.read(window).valid))
    except InputError:  # a broken tile is for the loader's error budget to judge
        return False

"""Rasters with masks as a numbered source for the loader: random windows to train on, tiles to validate on.

A training row is one share of a raster: a raster of n windows' area has n rows, so that it is seen in proportion to
its area, and where the window of a row lies is drawn by the transform from (seed, epoch, position) alone. A validation
row is one tile; the tiles of a raster cover each of its pixels once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_engine.broken_samples import BrokenSampleError, Fault
from data_engine.index import probe
from data_engine.progress import tracked
from data_engine.records import Sample
from geospatial.class_masks import IGNORE, ClassMask, ClassTable
from geospatial.raster import Pixels, Raster, RasterSettings, Window, tiles
from geospatial.raster_sources import Pair, RasterSource, least_percent
from mmzoo.errors import InputError

PROBE_SIDE = 256  #: px of the middle of each raster that are compared with its domain when training begins
OPEN_FILES = 32  #: rasters, with their masks, that one worker keeps open
SPLITS = ("train", "val")


class Tile(NamedTuple):
    """A validation window; pixels above `own_top` and left of `own_left` (px in the window) belong to other tiles."""

    window: Window
    own_top: int
    own_left: int


class Place(NamedTuple):
    """Where a row lies: number of the raster, and its tile (None: a random window)."""

    raster: int
    tile: Tile | None


class Entry(NamedTuple):
    """A raster of the index."""

    pair: Pair
    source: int
    height: int
    width: int
    domain: str
    bands: int


def own_tiles(height: int, width: int, size: int) -> list[Tile]:
    """Tiles of `size` px whose own parts are disjoint and cover the raster."""
    across = -(-width // size)
    return [
        Tile(window, number // across * size - window.top, number % across * size - window.left)
        for number, window in enumerate(tiles(height, width, size))
    ]


class Scene:
    """An open raster with its mask and filters."""

    def __init__(self, pair: Pair, source: RasterSource, table: ClassTable) -> None:
        self.raster = Raster(pair.image, source.settings)
        size = self.raster.height, self.raster.width
        self._mask: ClassMask | None = None
        self._filters: list[tuple[Raster, float]] = []
        try:
            self._mask = ClassMask(pair.mask, table.remapped(source.remap), size, pair.image)
            self.raster.refuse_other_place(self._mask.raster)
            for path, least in pair.filters:
                self._filters.append((_filter_raster(path, size, pair.image), least))
                self.raster.refuse_other_place(self._filters[-1][0])
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.raster.height, self.raster.width

    def read(self, window: Window) -> Pixels:
        """Values and valid pixels of a window."""
        return self.raster.read(window)

    def labels(self, window: Window) -> np.ndarray:
        """Labels of a window, uint8 (H, W); IGNORE also where a filter says so."""
        assert self._mask is not None
        labels = self._mask.read(window)
        for raster, least in self._filters:
            percent = raster.read(window)
            labels[~percent.valid | (percent.values[0] < least_percent(least))] = IGNORE
        return labels

    def close(self) -> None:
        """Closes its files."""
        for opened in (self.raster, self._mask, *(raster for raster, _ in self._filters)):
            if opened is not None:
                opened.close()


def _filter_raster(path: Path, size: tuple[int, int], image: Path) -> Raster:
    raster = Raster(path, RasterSettings(domain="display8", bands=(1,)))
    if (raster.height, raster.width) != size:
        raise InputError(f"{path} has {raster.height} x {raster.width} px, its raster {image} {size[0]} x {size[1]}")
    return raster


def _check_values(raster: Raster) -> None:
    """InputError: the middle of the raster holds what its domain cannot (geospatial.sar.domains.check_domain)."""
    height, width = (min(PROBE_SIDE, side) for side in (raster.height, raster.width))
    window = Window((raster.height - height) // 2, (raster.width - width) // 2, height, width)
    raster.refuse_impossible(raster.read(window))


class RasterIndex:
    """All rasters of all sources, checked once: they open, say their domain, and their masks have their size."""

    def __init__(
        self, sources: Sequence[RasterSource], pairs: Sequence[Sequence[Pair]], table: ClassTable, window: int
    ) -> None:
        self.sources = list(sources)
        self.table = table
        self.window = window
        self.fields = ["image"]
        self.folder = Path(sources[0].images)
        listed = [(number, pair) for number, of_source in enumerate(pairs) for pair in of_source]
        self.entries = [self._entry(number, pair) for number, pair in tracked(listed, "rasters", len(listed))]
        self._refuse_mixed_bands()
        self._places = [
            (entry.pair.split, place) for entry_places in self._all_places() for entry, place in entry_places
        ]
        self.count = len(self._places)
        self.identity = self._identity()

    def _entry(self, number: int, pair: Pair) -> Entry:
        scene = Scene(pair, self.sources[number], self.table)
        try:
            _check_values(scene.raster)
            return Entry(pair, number, *scene.size, scene.raster.domain, len(scene.raster.bands))
        finally:
            scene.close()

    def _refuse_mixed_bands(self) -> None:
        first = self.entries[0]
        for entry in self.entries:
            if entry.bands != first.bands:
                raise InputError(
                    f"{entry.pair.image} gives {entry.bands} bands and {first.pair.image} {first.bands}. "
                    f"Choose the same number with bands"
                )

    def _all_places(self) -> list[list[tuple[Entry, Place]]]:
        return [
            [(entry, place) for place in self._places_of(number, entry)] for number, entry in enumerate(self.entries)
        ]

    def _places_of(self, number: int, entry: Entry) -> list[Place]:
        if entry.pair.split == "val":
            return [Place(number, tile) for tile in own_tiles(entry.height, entry.width, self.window)]
        return [Place(number, None)] * max(1, round(entry.height * entry.width / self.window**2))

    def _identity(self) -> str:
        content = {
            "table": [self.table.ids, self.table.names, self.table.ignore],
            "window": self.window,
            "rasters": [
                {
                    "source": self.sources[entry.source].name,
                    "remap": self.sources[entry.source].remap,
                    "settings": repr(self.sources[entry.source].settings),
                    "key": entry.pair.key,
                    "split": entry.pair.split,
                    "size": [entry.height, entry.width],
                    "files": [probe(file) for file in (entry.pair.image, entry.pair.mask)],
                    "filters": [[probe(path), least] for path, least in entry.pair.filters],
                }
                for entry in self.entries
            ],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def remedy(self) -> str:
        """What to do about broken samples."""
        return "Mend the raster or its mask, or leave it out of the source"

    def split_rows(self, split: str) -> np.ndarray:
        """Rows of "train", "val" or "all", int64."""
        if split not in (*SPLITS, "all"):
            raise InputError(f"no split {split!r}. Known: {', '.join((*SPLITS, 'all'))}")
        wanted = [split in (own, "all") for own, _ in self._places]
        return np.flatnonzero(np.array(wanted, bool)).astype(np.int64)

    def places(self, rows: Sequence[int] | np.ndarray) -> list[Place]:
        """Raster and tile of each row."""
        return [self._places[int(row)][1] for row in rows]


class RasterReader:
    """Samples of an index: fields {"scene": Scene, "tile": Tile or None}; the transform reads what it needs of it."""

    def __init__(self, index: RasterIndex) -> None:
        self.index = index
        self._open: OrderedDict[int, Scene] = OrderedDict()
        self._owner = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"index": self.index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["index"])

    def sample(self, row: int, place: Place | None = None) -> Sample:
        """The sample of a row, nothing of it read yet."""
        raster, tile = place or self.index.places([row])[0]
        entry = self.index.entries[raster]
        source = self.index.sources[entry.source]
        try:
            scene = self._scene(raster)
        except InputError as mistake:  # it was fine when the training began
            raise self.broken(row, "image", str(mistake)) from None
        meta = {"path": str(entry.pair.image), "weight": source.weight, "role": source.role, "domain": entry.domain}
        return Sample(entry.pair.key, source.name, {"scene": scene, "tile": tile}, meta)

    def _scene(self, raster: int) -> Scene:
        if self._owner != os.getpid():  # open files are not shared with the process that this one was forked from
            self._open, self._owner = OrderedDict(), os.getpid()
        if raster not in self._open:
            entry = self.index.entries[raster]
            self._open[raster] = Scene(entry.pair, self.index.sources[entry.source], self.index.table)
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(raster)
        return self._open[raster]

    def fault(self, row: int, field: str, reason: str) -> Fault:  # noqa: ARG002 - shards have several members
        """The record of a fault; the file stands in the place of a shard."""
        entry = self.index.entries[self.index.places([row])[0].raster]
        return Fault(self.index.sources[entry.source].name, entry.pair.image.name, entry.pair.key, 0, reason)

    def broken(self, row: int, field: str, reason: str) -> BrokenSampleError:
        """The error of a fault."""
        return BrokenSampleError(self.fault(row, field, reason), self.index.remedy)

    def location(self, row: int) -> str:
        """Source, file and key."""
        return self.fault(row, "image", "").where

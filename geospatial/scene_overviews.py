"""Smaller versions of a class map, each pixel the most frequent class of four, made from its rows as they pass.

GDAL's own `mode` reads the map once more and counts every class of every window, which takes longer than all other
writing. The rule is the same: of equals the class that was there often enough first, in reading order; pixels without
data do not count. Each level becomes a file beside the map that GDAL takes for its overview: `map.tif.ovr`,
`map.tif.ovr.ovr`.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from zlib import crc32

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

#: Rows that are halved at once: their parts stay in the cache of a core.
IN_CACHE_ROWS = 32


class ModeOverviews:
    """Writes the overviews of the map `path` of `size` px (height, width), down to one block of `block` px."""

    def __init__(self, path: Path, size: tuple[int, int], block: int, nodata: int, layout: dict[str, Any]) -> None:
        self._nodata, self._open = nodata, ExitStack()
        self.sizes = overview_sizes(size, block)
        self.paths = [path.with_name(path.name + ".ovr" * (level + 1)) for level in range(len(self.sizes))]
        self._layout = {**layout, "count": 1, "dtype": "uint8", "nodata": nodata}
        self._files: list[Any] = []
        self._block, self._sums = block, [0] * len(self.sizes)

    @property
    def rows_at_once(self) -> int:
        """Rows are given in multiples of this many, but for the last ones, so that no level splits a pixel."""
        return 2 ** len(self.sizes)

    def __enter__(self) -> Self:
        for path, (height, width) in zip(self.paths, self.sizes, strict=True):
            file = rasterio.open(path, "w", height=height, width=width, **self._layout)
            self._files.append(self._open.enter_context(file))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, top: int, values: np.ndarray) -> None:
        """Rows of the map from row `top` on, uint8 (n, width)."""
        for level, file in enumerate(self._files):
            values, top = halved_by_mode(values, self._nodata), top // 2
            self._sums[level] = crc32(values.data, self._sums[level])
            file.write(values, 1, window=Window(0, top, values.shape[1], len(values)))  # pyright: ignore[reportCallIssue]

    def compare(self, path: Path) -> None:
        """RasterioError: the overviews of `path` are not those that were given here."""
        for level, (height, width) in enumerate(self.sizes):
            found = 0
            with rasterio.open(path, overview_level=level) as file:
                for top in range(0, height, self._block):
                    window = Window(0, top, width, min(self._block, height - top))  # pyright: ignore[reportCallIssue]
                    found = crc32(file.read(1, window=window).data, found)
            if found != self._sums[level]:
                raise RasterioError(f"overview {level + 1} read back differs from what was written")


def overview_sizes(size: tuple[int, int], block: int) -> list[tuple[int, int]]:
    """Height and width of each overview, px: halves, rounded up, until one block holds all."""
    sizes = []
    while max(size) > block:
        size = (size[0] + 1) // 2, (size[1] + 1) // 2
        sizes.append(size)
    return sizes


def halved_by_mode(values: np.ndarray, nodata: int) -> np.ndarray:
    """The most frequent class of each 2 x 2 pixels, uint8 (H, W) -> (half, half), rounded up; `nodata` where all four
    have none. Of equals the one whose last pixel comes first.
    """
    height, width = values.shape
    if height % 2 or width % 2:
        values = np.pad(values, ((0, height % 2), (0, width % 2)), constant_values=nodata)
    halved = np.empty((len(values) // 2, values.shape[1] // 2), np.uint8)
    for top in range(0, len(halved), IN_CACHE_ROWS):
        rows = values[2 * top : 2 * (top + IN_CACHE_ROWS)]
        halved[top : top + IN_CACHE_ROWS] = _mode_of_four(rows, nodata)
    return halved


def _mode_of_four(rows: np.ndarray, nodata: int) -> np.ndarray:
    one, two, three, four = (np.ascontiguousarray(rows[down::2, across::2]) for down in (0, 1) for across in (0, 1))
    best = one.copy()
    for pixel in (two, three, four):
        _replace(best, best == nodata, pixel)
    for pixel, earlier in ((four, (one, two, three)), (three, (one, two)), (two, (one,))):
        again = np.logical_or.reduce([pixel == other for other in earlier])
        _replace(best, again & (pixel != nodata), pixel)
    return best


def _replace(values: np.ndarray, where: np.ndarray, by: np.ndarray) -> None:
    """As np.copyto, in bits: up to seven times faster, as nothing depends on what is there."""
    values ^= (values ^ by) & np.negative(where.view(np.uint8))

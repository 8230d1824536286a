"""A scene in row bands from top to bottom: each row is read once, the next band while the model works on this one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np

from geospatial.raster import Pixels, Raster, Window


class BandReader:
    """Rows of the part `window` of a raster, for tile rows in order. Rows count from the top of the window.

    Reads end where a row of the file's blocks ends, so that no block is unpacked twice; holds twice `crop` rows and at
    most one row of blocks more. InputError: the file is damaged, or its values are none of its domain.
    """

    def __init__(self, raster: Raster, window: Window, crop: int) -> None:
        self.raster, self.window = raster, window
        block = raster.block_rows
        self._align = block if block <= 2 * crop else 1  # a strip of the whole image has no rows of blocks
        room = 2 * crop + self._align  # what is looked at, and below it what is read meanwhile
        self._values = np.zeros((len(raster.bands), room, window.width), np.float32)
        self._valid = np.zeros((room, window.width), bool)
        self._top = self._bottom = 0
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="band")
        self._coming: Future[int] | None = None

    def __enter__(self) -> BandReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def start_at(self, row: int) -> None:
        """Rows above `row` are never asked for."""
        self._top = self._bottom = row

    def rows(self, top: int, bottom: int, then: int | None = None) -> Pixels:
        """Rows `top` to `bottom` (px, at most `crop`), views that the next call changes; `then`: to which row the next
        call will want them, which are read meanwhile.
        """
        self._take()
        self._drop(top)
        if bottom > self._bottom:
            self._ask(bottom)
            self._take()
        if then is not None and then > self._bottom:
            self._ask(then)
        return self._held(top, bottom)

    def _held(self, top: int, bottom: int) -> Pixels:
        place = slice(top - self._top, bottom - self._top)
        return Pixels(self._values[:, place], self._valid[place])

    def _drop(self, top: int) -> None:
        kept = max(0, self._bottom - top)
        if kept and top > self._top:
            start = top - self._top
            self._values[:, :kept] = self._values[:, start : start + kept]
            self._valid[:kept] = self._valid[start : start + kept]
        self._top, self._bottom = top, top + kept

    def _ask(self, bottom: int) -> None:
        absolute = self.window.top + bottom
        end = -(-absolute // self._align) * self._align - self.window.top
        self._coming = self._worker.submit(self._read, self._bottom, min(end, self.window.height))

    def _read(self, top: int, bottom: int) -> int:
        pixels = self._held(top, bottom)
        self.raster.read_into(Window(self.window.top + top, self.window.left, bottom - top, self.window.width), pixels)
        self.raster.refuse_impossible(pixels)
        return bottom

    def _take(self) -> None:
        if self._coming is not None:
            coming, self._coming = self._coming, None
            self._bottom = coming.result()

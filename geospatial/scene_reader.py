"""A scene in row bands from top to bottom: each row is read once, the next band while the model works on this one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np

from geospatial.raster import Pixels, Raster, Window


class BandReader:
    """Rows of the part `window` of a raster, for tile rows in order. Rows count from the top of the window.

    Reads end where a row of the file's blocks ends, so that no block is unpacked twice; holds twice `crop` rows and a
    row of blocks. InputError: the file is damaged, or its values are none of its domain.
    """

    def __init__(self, raster: Raster, window: Window, crop: int) -> None:
        self.raster, self.window = raster, window
        block = raster.block_rows
        self._align = block if block <= 2 * crop else 1  # a strip of the whole image has no rows of blocks
        size = crop + self._align, window.width
        self._held, self._next = (
            Pixels(np.zeros((len(raster.bands), *size), np.float32), np.zeros(size, bool)) for _ in range(2)
        )
        self._top = self._bottom = 0
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="band")
        self._coming: Future[tuple[int, int]] | None = None

    def __enter__(self) -> BandReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def rows(self, top: int, bottom: int, then: tuple[int, int] | None = None) -> Pixels:
        """Rows `top` to `bottom` (px, at most `crop`), views that the next call changes; `then`: what that one will ask
        for, which is read meanwhile.
        """
        self._take()
        if not self._top <= top <= bottom <= self._bottom:
            self._ask(top, bottom)
            self._take()
        if then is not None:
            self._ask(*then)
        return _part(self._held, top - self._top, bottom - self._top)

    def _ask(self, top: int, bottom: int) -> None:
        self._coming = self._worker.submit(self._fill, top, bottom)

    def _take(self) -> None:
        if self._coming is not None:
            coming, self._coming = self._coming, None
            self._top, self._bottom = coming.result()
            self._held, self._next = self._next, self._held

    def _fill(self, top: int, bottom: int) -> tuple[int, int]:
        """Rows from `top` on, those that are held already and at least up to `bottom`: their first and their end."""
        known = max(top, self._bottom) if top >= self._top else top
        if known > top:
            old, new = _part(self._held, top - self._top, known - self._top), _part(self._next, 0, known - top)
            new.values[:], new.valid[:] = old.values, old.valid
        if known >= bottom:
            return top, known
        end = self._block_end(bottom)
        pixels = _part(self._next, known - top, end - top)
        self.raster.read_into(Window(self.window.top + known, self.window.left, end - known, self.window.width), pixels)
        self.raster.refuse_impossible(pixels)
        return top, end

    def _block_end(self, row: int) -> int:
        absolute = self.window.top + row
        return min(-(-absolute // self._align) * self._align - self.window.top, self.window.height)


def _part(pixels: Pixels, first: int, last: int) -> Pixels:
    return Pixels(pixels.values[:, first:last], pixels.valid[first:last])

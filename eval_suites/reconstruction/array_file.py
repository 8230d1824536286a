"""Arrays that belong to the rows of a sample log and are too large for its lines: one file, row after row, appended.

A row's array is written before its line is. So after a kill the file holds at least what the log's rows need; what
goes beyond is cut off. Each row keeps the CRC-32 of its array, which is checked when it is read back.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from mmzoo.durable_files import refused_writes_named
from mmzoo.errors import InputError


class ArrayFile:
    """Arrays of one dtype. `sizes`: how many values the rows that are finished have, one number a row.

    InputError: the file holds fewer values than those rows need, or cannot be written.
    """

    def __init__(self, path: Path, dtype: str, sizes: Sequence[int]) -> None:
        self.path = path
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.sizes = list(sizes)
        needed = sum(self.sizes) * self.dtype.itemsize
        with refused_writes_named(path):
            self._file = path.open("ab")
            there = path.stat().st_size
            if there >= needed:
                self._file.truncate(needed)
        if there < needed:
            self._file.close()
            raise InputError(f"{path} holds {there} of {needed} bytes that belong to its sample log. {_AGAIN}")

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, values: np.ndarray) -> int:
        """Adds a row's array, flattened; its CRC-32. It is the system's when this returns."""
        data = np.ascontiguousarray(values, self.dtype).tobytes()
        with refused_writes_named(self.path):
            self._file.write(data)
            self._file.flush()
        self.sizes.append(values.size)
        return zlib.crc32(data)

    def rows(self, checksums: Sequence[int]) -> Iterator[np.ndarray]:
        """Each row's values (n,), in order. InputError: not the ones that were written."""
        with self.path.open("rb") as file:
            for size, checksum in zip(self.sizes, checksums, strict=True):
                data = file.read(size * self.dtype.itemsize)
                if zlib.crc32(data) != checksum:
                    raise InputError(f"{self.path} is not what was written (CRC-32). {_AGAIN}")
                yield np.frombuffer(data, self.dtype)


_AGAIN = "Remove the folder and measure again."

"""litdata and MosaicML streaming, each over its own copy of the samples in its own format; from `make bench-env`.

A sample is one field of bytes. Read in stored order, in one process, without a cache of their own to fill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

FIELD = "data"
CHUNK_BYTES = 2**25
#: Name for the reader -> module that must be there.
MODULES = {"litdata": "litdata", "MosaicML streaming": "streaming"}
ADVICE = "not measured: run `make bench-env`"


def present() -> list[str]:
    """The peers of this file that are installed."""
    return [name for name, module in MODULES.items() if find_spec(module)]


def write(name: str, samples: Sequence[bytes], folder: Path) -> None:
    """Writes the samples in a peer's format."""
    WRITERS[name](samples, folder)


def read(name: str, folder: Path) -> Iterator[bytes]:
    """All samples, in the order in which they were written."""
    return READERS[name](folder)


def batches(name: str, folder: Path, decode: Callable[[bytes], np.ndarray], batch: int) -> Iterator[np.ndarray]:
    """uint8 (B, H, W, 3): each sample decoded by `decode`, whole batches only."""
    images: list[np.ndarray] = []
    for data in read(name, folder):
        images.append(decode(data))
        if len(images) == batch:
            yield np.stack(images)
            images = []


def _write_litdata(samples: Sequence[bytes], folder: Path) -> None:
    from litdata.streaming.cache import Cache

    cache = Cache(str(folder), chunk_bytes=CHUNK_BYTES)
    for number, data in enumerate(samples):
        cache[number] = {FIELD: data}
    cache.done()
    cache.merge()


def _read_litdata(folder: Path) -> Iterator[bytes]:
    from litdata import StreamingDataset

    return (sample[FIELD] for sample in StreamingDataset(str(folder), shuffle=False))


def _write_mosaic(samples: Sequence[bytes], folder: Path) -> None:
    from streaming import MDSWriter

    with MDSWriter(columns={FIELD: "bytes"}, out=str(folder), size_limit=CHUNK_BYTES) as writer:
        for data in samples:
            writer.write({FIELD: data})


def _read_mosaic(folder: Path) -> Iterator[bytes]:
    from streaming import LocalDataset

    dataset = LocalDataset(str(folder))
    return (dataset[number][FIELD] for number in range(len(dataset)))


WRITERS = {"litdata": _write_litdata, "MosaicML streaming": _write_mosaic}
READERS = {"litdata": _read_litdata, "MosaicML streaming": _read_mosaic}

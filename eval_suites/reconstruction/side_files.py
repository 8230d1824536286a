"""The codes and the Inception features of every row of a sample log: too large for its lines, needed at the end.

codes.bin          int32, each image's codes (h, w, L) flattened; its row's `more` says h, w and L
features_0.bin     float32, 2,048 values an image: of the image itself
features_4.bin     the same of its output from 4 levels, and so on; only where rFID is measured
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from eval_suites.metrics.frechet import FeatureSums
from eval_suites.metrics.inception import Inception
from eval_suites.reconstruction.array_file import ArrayFile
from eval_suites.reconstruction.sample import MeasuredSample
from eval_suites.sample_log import SampleRow

#: Feature vectors that are added up at once: a fixed number, so that the sums do not depend on the batches.
BLOCK = 256


class SideFiles:
    """Opened for the rows that are there; `append` writes a sample's arrays and gives the row that belongs to them."""

    def __init__(
        self, folder: Path, rows: Sequence[SampleRow], levels: Sequence[int], inception: Inception | None
    ) -> None:
        self._stack = ExitStack()
        self._rows = rows
        self._width = inception.width if inception else 0
        with ExitStack() as opening:
            shapes = [row.more["codes"]["shape"] for row in rows]
            sizes = [int(np.prod(shape)) for shape in shapes]
            self._codes = opening.enter_context(ArrayFile(folder / "codes.bin", "i4", sizes))
            self._features = {
                level: opening.enter_context(
                    ArrayFile(folder / f"features_{level}.bin", "f4", [self._width] * len(rows))
                )
                for level in ((0, *levels) if inception else ())
            }
            self._stack = opening.pop_all()

    def __enter__(self) -> SideFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def append(self, sample: MeasuredSample) -> SampleRow:
        """Writes the arrays first: the row, whose line makes the image a finished one, is the caller's to append."""
        sums = {str(level): file.append(sample.features[level]) for level, file in self._features.items()}
        more = {
            "source_px": [sample.reading.height, sample.reading.width],
            "px": list(sample.size),
            "codes": {"shape": list(sample.codes.shape), "crc32": self._codes.append(sample.codes)},
            "features_crc32": sums,
        }
        return SampleRow(sample.reading.key, sample.reading.group, sample.values, more)

    def codes(self) -> Iterator[np.ndarray]:
        """Each row's codes (h, w, L), in the log's order."""
        places = [row.more["codes"] for row in self._rows]
        for place, flat in zip(places, self._codes.rows([place["crc32"] for place in places]), strict=True):
            yield flat.reshape(place["shape"])

    def feature_sums(self, level: int) -> FeatureSums:
        """Sums of the features of all images (level 0) or of all outputs from that many levels."""
        checksums = [row.more["features_crc32"][str(level)] for row in self._rows]
        return FeatureSums.of(_stacked(self._features[level].rows(checksums)), self._width)


def _stacked(rows: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    block: list[np.ndarray] = []
    for row in rows:
        block.append(row)
        if len(block) == BLOCK:
            yield np.stack(block)
            block = []
    if block:
        yield np.stack(block)

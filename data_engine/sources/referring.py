"""Referring expressions as JSON lines, as refGeo has them: a phrase, the box and the corners it refers to.

A row has `image_id`, `question` (the phrase), `bbox` [x1, y1, x2, y2], `poly` four [x, y], `image_width`,
`image_height`, and, where it has them, `dataset`, `question_id` and `mask_exists` (RSCoVLM spec 2.5). The image lies at
`images/<dataset>/<image_id>`, the mask at `masks/<dataset>/<stem>_<question_id>.png`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from data_engine.sources.annotation_rows import Row, annotation_rows
from data_engine.sources.source import Source, file_in
from data_engine.stored_sample import Region, StoredFile, StoredSample

USED = ("image_id", "question", "bbox", "poly")


@dataclass(frozen=True, kw_only=True)
class ReferringSource(Source):
    """`annotations`: the rows; `images`, `masks`: folders; without `masks` no mask is read."""

    annotations: Path
    images: Path
    masks: Path | None = None

    def samples(self) -> Iterator[StoredSample]:
        """See Source."""
        for row in annotation_rows(self.annotations):
            phrase = row.require("question")
            with row.faults():
                region = Region(label=phrase, box=self._box(row), quad=self._quad(row))
            if region.box is None and region.quad is None:
                raise row.fail("neither 'bbox' nor 'poly'")
            yield self.sample(
                row.number,
                self.origin(row, self.annotations),
                images=(file_in(self.images, self._path(row, row.require("image_id")), row.place),),
                mask=self._mask(row),
                regions=(region,),
                text=phrase,
                meta=row.rest(*USED),
                stated=row.size("image_width", "image_height"),
            )

    def _path(self, row: Row, name: str) -> str:
        return f"{row.require('dataset')}/{name}" if "dataset" in row.values else name

    def _mask(self, row: Row) -> StoredFile | None:
        if self.masks is None or not row.values.get("mask_exists", True):
            return None
        stem = PurePosixPath(row.require("image_id")).with_suffix("")
        name = f"{stem}_{row.require('question_id', (str, int))}.png"
        return file_in(self.masks, self._path(row, name), row.place)

    def _box(self, row: Row) -> Any:
        return tuple(row.numbers("bbox", 4)) if "bbox" in row.values else None

    def _quad(self, row: Row) -> Any:
        if "poly" not in row.values:
            return None
        points = row.require("poly", list)
        if len(points) != 4:
            raise row.fail(f"'poly' has {len(points)} corners, 4 are due")
        return tuple(tuple(row.as_numbers(point, "poly", 2)) for point in points)

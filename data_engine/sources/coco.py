"""Object detection in COCO's layout: boxes (xywh), polygons, run-length masks, and oriented boxes as eight numbers.

One sample an image, in the order of `images`; an image without annotations is a sample without objects. The file is
one JSON object whose parts refer to each other, so it is loaded whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_engine.sources.annotation_rows import Row, read_json
from data_engine.sources.source import Source, file_in
from data_engine.stored_sample import Region, StoredSample
from mmzoo.errors import InputError, suggestion


@dataclass(frozen=True, kw_only=True)
class CocoSource(Source):
    """`annotations`: the JSON; `images`: folder of its `file_name`s.

    `segmentation`: what eight numbers mean, "polygon" or "quad" (the corners of an oriented box, as DOTA in COCO's
    layout has them). With "quad" any other segmentation is an error.
    """

    annotations: Path
    images: Path
    segmentation: Literal["polygon", "quad"] = "polygon"

    def samples(self) -> Iterator[StoredSample]:
        """See Source."""
        content = read_json(self.annotations)
        images, annotations, categories = (
            self._part(content, name) for name in ("images", "annotations", "categories")
        )
        self._once(categories, "category")
        labels = {row.values["id"]: row.require("name") for row in categories}
        known = self._once(images, "image")
        objects: dict[int, list[Region]] = defaultdict(list)
        for row in annotations:
            image = row.require("image_id", int)
            if image not in known:
                raise row.fail(f"image_id {image} is not among the images")
            objects[image].append(self._region(row, labels))
        for row in images:
            file = file_in(self.images, row.require("file_name"), row.place)
            regions = tuple(objects.get(row.values["id"], ()))
            origin = f"{self.annotations.name}:{row.place.rpartition(': ')[2]}"
            yield self.sample(
                row.number,
                origin,
                images=(file,),
                regions=regions,
                meta=row.rest("file_name"),
                stated=row.size("width", "height"),
            )

    def _part(self, content: Any, name: str) -> list[Row]:
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            known = suggestion(name, content) if isinstance(content, dict) else ""
            raise InputError(f"{self.annotations}: no list {name!r}.{known} COCO has images, annotations, categories")
        rows = [
            Row(f"{self.annotations}: {name}[{number}]", number + 1, row) for number, row in enumerate(content[name])
        ]
        for row in rows:
            if not isinstance(row.values, dict):
                raise row.fail("an object is due")
        return rows

    def _once(self, rows: list[Row], what: str) -> set[int]:
        known: set[int] = set()
        for row in rows:
            number = row.require("id", int)
            if number in known:
                raise row.fail(f"{what} id {number} is there twice")
            known.add(number)
        return known

    def _region(self, row: Row, labels: dict[int, str]) -> Region:
        category = row.require("category_id", int)
        if category not in labels:
            raise row.fail(f"category_id {category} is not among the categories")
        shape = self._shape(row, row.values.get("segmentation"))
        box = None
        if "bbox" in row.values:
            x, y, width, height = row.numbers("bbox", 4)
            box = (x, y, x + width, y + height)
        elif not shape:
            raise row.fail("neither 'bbox' nor 'segmentation'")
        with row.faults():
            return Region(label=labels[category], box=box, ignore=bool(row.values.get("iscrowd")), **shape)

    def _shape(self, row: Row, given: Any) -> dict[str, Any]:
        if not given:
            return {}
        if isinstance(given, dict):
            if self.segmentation == "quad":
                raise row.fail("a run-length mask where segmentation: quad wants eight numbers")
            return {"rle": given}
        polygons = [corners(row, polygon) for polygon in given] if isinstance(given, list) else None
        if polygons is None:
            raise row.fail("'segmentation' is neither polygons nor a run-length mask")
        if self.segmentation == "polygon":
            return {"polygons": tuple(polygons)}
        if len(polygons) != 1 or len(polygons[0]) != 4:
            raise row.fail("'segmentation' is not the eight numbers of an oriented box. Set segmentation: polygon")
        return {"quad": polygons[0]}


def corners(row: Row, values: Any) -> tuple[tuple[float, float], ...]:
    """Points of x1, y1, x2, y2, ... InputError: not an even count of numbers."""
    count = len(values) if isinstance(values, list) else 0
    if count % 2 or count < 6:
        raise row.fail(f"a polygon of {count} numbers; pairs of x and y, three at least, are due")
    numbers = row.as_numbers(values, "segmentation", count)
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))

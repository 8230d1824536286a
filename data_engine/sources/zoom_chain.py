"""Questions about very large images with the region one must look at: the records of LRS-VQA-Zoom.

A row has `id`, `image`, `image_ori_width`, `image_ori_height`, `bbox_info` {rbox: eight numbers each, crop_hbox:
[x1, y1, x2, y2] each}, and `question` with `answer`, or `Text` with `Answer choices` and `Ground truth`
(RSCoVLM spec 2.5 and 3). The turns of the chain itself are made where the model's prompts are known; here the sample
keeps question and answer, the oriented boxes as regions EVIDENCE and the crops as regions CROP, in px of the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_engine.sources.annotation_rows import Row, annotation_rows
from data_engine.sources.coco import corners
from data_engine.sources.source import Source, file_in
from data_engine.stored_sample import IMAGE_PLACEHOLDER, Region, StoredSample, Turn

EVIDENCE, CROP = "evidence", "crop"
CHOICES_FOLLOW = " The choices are listed below:"
USED = ("image", "bbox_info", "question", "answer", "Text", "Ground truth")


@dataclass(frozen=True, kw_only=True)
class ZoomChainSource(Source):
    """`annotations`: the rows; `images`: folder of their image paths."""

    annotations: Path
    images: Path

    def samples(self) -> Iterator[StoredSample]:
        """See Source."""
        for row in annotation_rows(self.annotations):
            question, answer = _question(row)
            yield self.sample(
                row.number,
                self.origin(row, self.annotations),
                images=(file_in(self.images, row.require("image"), row.place),),
                conversation=(Turn("user", f"{IMAGE_PLACEHOLDER}\n{question}"), Turn("assistant", answer)),
                regions=_regions(row),
                meta=row.rest(*USED),
                stated=row.size("image_ori_width", "image_ori_height"),
            )


def _question(row: Row) -> tuple[str, str]:
    if "Text" not in row.values:
        return row.require("question"), str(row.require("answer", (str, int, float)))
    choices = row.require("Answer choices", list)
    if not all(isinstance(choice, str) for choice in choices):
        raise row.fail("'Answer choices' holds other things than texts")
    return "\n".join([row.require("Text") + CHOICES_FOLLOW, *choices]), row.require("Ground truth")


def _regions(row: Row) -> tuple[Region, ...]:
    info: dict[str, Any] = row.require("bbox_info", dict)
    found = []
    for values in _listed(row, info, "rbox"):
        points = corners(row, values)
        if len(points) != 4:
            raise row.fail(f"an 'rbox' of {2 * len(points)} numbers, 8 are due")
        found.append(Region(label=EVIDENCE, quad=points))  # pyright: ignore[reportArgumentType]
    with row.faults():
        for values in _listed(row, info, "crop_hbox"):
            x1, y1, x2, y2 = row.as_numbers(values, "crop_hbox", 4)
            found.append(Region(label=CROP, box=(x1, y1, x2, y2)))
    return tuple(found)


def _listed(row: Row, info: dict[str, Any], name: str) -> list[Any]:
    return Row(row.place, row.number, info).require(name, list) if info.get(name) is not None else []

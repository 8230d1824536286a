"""Questions with answers about images, one a row (JSON or JSON lines): a conversation of two turns.

`answer` is text or a number; where it reads as a number, and the row's `answer_type` says so, the sample has it as a
number, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_engine.sources.annotation_rows import Row, annotation_rows
from data_engine.sources.source import Source, file_in
from data_engine.stored_sample import IMAGE_PLACEHOLDER, StoredSample, Turn

NUMBER = "number"


@dataclass(frozen=True, kw_only=True)
class QuestionSource(Source):
    """`annotations`: the file; `images`: folder of its image paths; `image`, `question`, `answer`: its fields."""

    annotations: Path
    images: Path
    image: str = "image"
    question: str = "question"
    answer: str = "answer"

    def samples(self) -> Iterator[StoredSample]:
        """See Source."""
        for row in annotation_rows(self.annotations):
            answer = str(row.require(self.answer, (str, int, float)))
            yield self.sample(
                row.number,
                self.origin(row, self.annotations),
                images=(file_in(self.images, row.require(self.image), row.place),),
                conversation=(
                    Turn("user", f"{IMAGE_PLACEHOLDER}\n{row.require(self.question)}"),
                    Turn("assistant", answer),
                ),
                number=self._number(row, answer),
                license=self.license or row.optional_text("license"),
                meta=row.rest(self.image, self.question, self.answer, "license"),
            )

    def _number(self, row: Row, answer: str) -> float | None:
        if row.values.get("answer_type") != NUMBER:
            return None
        try:
            number = float(answer)
        except ValueError:
            raise row.fail(f"answer_type is number, the answer {answer!r} is none") from None
        if not math.isfinite(number):
            raise row.fail(f"answer {answer!r} is not finite")
        return number

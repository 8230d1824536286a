"""Images with captions: rows of an annotation file, or a text file beside each image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_engine.sources.annotation_rows import annotation_rows
from data_engine.sources.image_folder import IMAGE_SUFFIXES
from data_engine.sources.source import Source, file_in, files_by_stem, paired
from data_engine.stored_sample import StoredFile, StoredSample
from mmzoo.errors import InputError


@dataclass(frozen=True, kw_only=True)
class CaptionSource(Source):
    """`images`: the folder. `annotations`: rows with the fields `image` and `caption`; without, `name.txt` lies beside
    `name.jpg`. A caption may be a list: the sample's text is the first, `meta.captions` has all.
    """

    images: Path
    annotations: Path | None = None
    image: str = "image"
    caption: str = "caption"

    def samples(self) -> Iterator[StoredSample]:
        """See Source."""
        return self._from_folder() if self.annotations is None else self._from_rows(self.annotations)

    def _from_rows(self, file: Path) -> Iterator[StoredSample]:
        for row in annotation_rows(file):
            given = row.require(self.caption, (str, list))
            captions = [given] if isinstance(given, str) else given
            if not captions or not all(isinstance(caption, str) and caption for caption in captions):
                raise row.fail(f"{self.caption!r} is empty, or holds other things than texts")
            meta = row.rest(self.image, self.caption, "license")
            yield self.sample(
                row.number,
                self.origin(row, file),
                images=(file_in(self.images, row.require(self.image), row.place),),
                text=captions[0],
                license=self.license or row.optional_text("license"),
                meta=meta if isinstance(given, str) else {**meta, "captions": captions},
            )

    def _from_folder(self) -> Iterator[StoredSample]:
        pictures = files_by_stem(self.images, "images", IMAGE_SUFFIXES)
        texts = files_by_stem(self.images, "captions", {".txt"})
        paired(pictures, texts, "captions", self.images)
        for number, stem in enumerate(pictures, 1):
            file = self.images / texts[stem]
            try:
                text = file.read_text(encoding="utf-8-sig").strip()
            except (OSError, UnicodeDecodeError) as fault:
                raise InputError(f"cannot read {file}: {fault}") from None
            if not text:
                raise InputError(f"{file}:1: the caption is empty. Write one, or remove the image with it")
            picture = StoredFile(pictures[stem], self.images / pictures[stem])
            yield self.sample(number, texts[stem], images=(picture,), text=text)

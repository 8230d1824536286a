"""A folder of images without labels: what a tokenizer, or pretraining on pictures alone, reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_engine.sources.image_folder import list_files, may_be_image
from data_engine.sources.source import Source
from data_engine.stored_sample import StoredFile, StoredSample


@dataclass(frozen=True, kw_only=True)
class PlainImageSource(Source):
    """`images`: the folder, at any depth. A file counts when its first bytes or its suffix are those of an image;
    others are passed over. As in `mmzoo data build images`, one of the suffix that is no image is a damaged one.
    """

    images: Path

    def samples(self) -> Iterator[StoredSample]:
        """See Source."""
        paths = (path for path in list_files(self.images) if may_be_image(self.images / path))
        for number, path in enumerate(paths, 1):
            yield self.sample(number, path, images=(StoredFile(path, self.images / path),))

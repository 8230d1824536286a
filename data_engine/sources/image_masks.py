"""Images and masks in two folders, paired by their relative paths without suffix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_engine.sources.image_folder import IMAGE_SUFFIXES
from data_engine.sources.source import Source, files_by_stem, paired
from data_engine.stored_sample import StoredFile, StoredSample
from mmzoo.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ImageMaskSource(Source):
    """`images`, `masks`: folders. `mask_suffix`: what a mask's name has more than its image's, e.g. "_mask".

    A mask holds one integer a pixel. `classes` {number: name} and `ignore` (the number that counts nowhere) go to meta.
    """

    images: Path
    masks: Path
    mask_suffix: str = ""
    classes: dict[int, str] | None = None
    ignore: int | None = None

    def samples(self) -> Iterator[StoredSample]:
        """See Source."""
        pictures = files_by_stem(self.images, "images", IMAGE_SUFFIXES)
        masks = self._masks()
        paired(pictures, masks, "masks", self.masks)
        meta = {"classes": self.classes and {str(number): name for number, name in self.classes.items()}}
        meta |= {"ignore": self.ignore}
        for number, (stem, path) in enumerate(pictures.items(), 1):
            picture = StoredFile(path, self.images / path)
            mask = StoredFile(masks[stem], self.masks / masks[stem])
            yield self.sample(
                number, path, images=(picture,), mask=mask, meta={k: v for k, v in meta.items() if v is not None}
            )

    def _masks(self) -> dict[str, str]:
        found = files_by_stem(self.masks, "masks", IMAGE_SUFFIXES)
        wrong = [path for stem, path in found.items() if not stem.endswith(self.mask_suffix)]
        if wrong:
            raise InputError(
                f"{self.masks / wrong[0]} does not end in mask_suffix {self.mask_suffix!r}. Mend the suffix"
            )
        return {stem.removesuffix(self.mask_suffix): path for stem, path in found.items()}

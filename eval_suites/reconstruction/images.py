"""The images that are measured, in an order that does not depend on where they are: a folder, or shards built from it.

Keys, order and pixels are the same both ways: those that `mmzoo data build` gives (data_engine's image rules).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path

import numpy as np

from data_engine.decode import DecodeRules, decode_image
from data_engine.index import INDEX_FOLDER, ShardIndex, key_hash
from data_engine.progress import tracked
from data_engine.reader import ShardReader
from data_engine.shards import sample_key
from data_engine.sources.image_folder import ImageFile, Rejected, examine, list_files
from data_engine.splits import group_of, group_pattern, groups_of
from mmzoo.errors import InputError


class ImageSet(ABC):
    """Images in the order of their keys. `groups`: what is resampled together (one scene, copies of one file).

    name, kind ("folder" or "shards"), split (None for a folder) and identity are what the record says of the data.
    """

    kind: str

    def __init__(self, name: str, split: str | None, identity: str) -> None:
        self.name = name
        self.split = split
        self.identity = identity
        self.keys: list[str] = []
        self.groups: list[str] = []

    def __len__(self) -> int:
        return len(self.keys)

    @abstractmethod
    def pixels(self, number: int) -> np.ndarray:
        """uint8 (H, W, 3), RGB, of the image with that number. InputError: it has become unreadable."""


class FolderImages(ImageSet):
    """All images of a folder, at any depth. `group`: regex over relative paths, as `mmzoo data build --group`.

    InputError: no image, or a broken one: a set that shrinks in silence is another set.
    """

    kind = "folder"

    def __init__(self, folder: Path, group: str | None = None) -> None:
        pattern = group_pattern(group)
        found: list[tuple[str, str, str]] = []
        paths = list_files(folder)
        for path in tracked(paths, "looking at images", len(paths)):
            image = examine(folder, path, Counter())
            if isinstance(image, ImageFile):
                found.append((sample_key(path), path, image.sha256))
            elif isinstance(image, Rejected):
                raise InputError(
                    f"{folder / image.path}: {image.reason}. Remove it, or build shards, which leave it out: "
                    f"mmzoo data build images"
                )
        if not found:
            raise InputError(f"no image in {folder}. Give a folder of images, or shards: mmzoo data build")
        found.sort()
        listed = "".join(f"{key} {sha256}\n" for key, _, sha256 in found)
        super().__init__(folder.resolve().name, None, hashlib.sha256(listed.encode()).hexdigest())
        self.keys = [key for key, _, _ in found]
        groups = groups_of([path for _, path, _ in found], pattern)
        self.groups = _copies_together([(group, sha256) for group, (_, _, sha256) in zip(groups, found, strict=True)])
        self._files = {key: (folder / path, sha256) for key, path, sha256 in found}

    def pixels(self, number: int) -> np.ndarray:
        file, sha256 = self._files[self.keys[number]]
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise InputError(f"{file} has changed since the evaluation began. Begin again in another folder.")
        return decode_image(data, DecodeRules())


class ShardImages(ImageSet):
    """One split ("train", "val", "all") of shards that `mmzoo data build` made. Groups: as they were built."""

    kind = "shards"

    def __init__(self, folder: Path, split: str) -> None:
        index = ShardIndex.open(folder)
        if "image" not in index.fields or "json" not in index.fields:
            raise InputError(f"{folder} holds {', '.join(index.fields)}, not images. Name shards of images.")
        super().__init__(index.source, split, index.identity)
        self._reader = ShardReader(index)
        self._rows = dict[str, int]()
        pattern = group_pattern(index.content["splits"].get("group"))
        named: list[tuple[str, str]] = []
        for row in map(int, index.split_rows(split)):
            meta = self._reader.meta(row)
            self._rows[self._reader.key(row)] = row
            named.append((group_of(meta["path"], pattern), meta["sha256"]))
        if not named:
            raise InputError(f"the split {split!r} of {folder} is empty. Choose another one.")
        self.keys = list(self._rows)
        self.groups = _copies_together(named)

    def pixels(self, number: int) -> np.ndarray:
        return self._reader.sample(self._rows[self.keys[number]]).fields["image"]


def open_images(path: Path, *, split: str = "val", group: str | None = None, limit: int | None = None) -> ImageSet:
    """Shards where there is an index, of them one split; else a folder of images, which has none.

    `limit`: only so many, chosen by the hash of their keys and not by their place in the alphabet; the same ones
    wherever the images lie. InputError: nothing there, no such split, a group for shards, a limit below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} leaves no image. Give 1 or more.")
    if (path / INDEX_FOLDER).is_dir():
        if group is not None:
            raise InputError(f"{path} holds shards, whose groups were set when they were built. Leave the group out.")
        images: ImageSet = ShardImages(path, split)
    else:
        images = FolderImages(path, group)
    if limit is not None:
        chosen = set(sorted(images.keys, key=key_hash)[:limit])
        kept = [number for number, key in enumerate(images.keys) if key in chosen]
        images.keys, images.groups = ([names[number] for number in kept] for names in (images.keys, images.groups))
    return images


def _copies_together(named: list[tuple[str, str]]) -> list[str]:
    """Groups of (group, sha256 of the file): copies of a picture are in the group of the first of them."""
    first: dict[str, str] = {}
    return [first.setdefault(sha256, group) for group, sha256 in named]

"""Random access to the samples of a shard folder by byte offset, from any process.

Reads with `pread`, so that processes may share a handle after a fork; a copy sent to another process opens its own.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.decode import DecodeRules, decode_image
from data_engine.index import ShardIndex, key_in_header
from data_engine.records import SAMPLE_SCHEMA, Sample
from data_engine.shards import BLOCK
from mmzoo.errors import InputError

MAX_OPEN_FILES = 64


class ImageCache:
    """Decoded images by row, the least recently used dropped first, never more than `limit` bytes (0: none)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._images: OrderedDict[int, np.ndarray] = OrderedDict()

    def get(self, row: int) -> np.ndarray | None:
        """A copy of the image of a row (the taker may write to it), or None."""
        image = self._images.get(row)
        if image is None:
            return None
        self._images.move_to_end(row)
        return image.copy()

    def put(self, row: int, image: np.ndarray) -> None:
        """Keeps a copy of an image, if it fits at all."""
        if image.nbytes > self.limit or row in self._images:
            return
        self._images[row] = image.copy()
        self.bytes += image.nbytes
        while self.bytes > self.limit:
            self.bytes -= self._images.popitem(last=False)[1].nbytes


class ShardReader:
    """Members and decoded samples of an index, by row. Every error names source, shard, key, byte offset and reason."""

    def __init__(self, index: ShardIndex, rules: DecodeRules | None = None, cache_bytes: int = 0) -> None:
        self.index = index
        self.rules = rules or DecodeRules()
        self.cache = ImageCache(cache_bytes)
        self._handles: OrderedDict[Path, int] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"index": self.index, "rules": self.rules, "limit": self.cache.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["index"], state["rules"], state["limit"])

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Closes the open shards; reading opens them again."""
        while getattr(self, "_handles", None):
            os.close(self._handles.popitem()[1])

    def location(self, row: int, field: str = "image") -> str:
        """Where a row lies, for messages: source, shard, key, byte offset."""
        path, offset, _ = self.index.place(row, field)
        try:
            key = self.key(row)
        except OSError:
            key = "?"
        return f"source {self.index.source}, shard {path.name}, key {key}, offset {offset}"

    def key(self, row: int) -> str:
        """Key of a row, read from the header of its first member."""
        path, offset, _ = self.index.place(row, self.index.fields[0])
        return key_in_header(os.pread(self._handle(path), BLOCK, offset - BLOCK))

    def raw(self, row: int, field: str) -> bytes:
        """The stored bytes of a member, e.g. field "image" or "json". InputError: the shard is gone or too short."""
        path, offset, size = self.index.place(row, field)
        try:
            data = os.pread(self._handle(path), size, offset)
        except OSError as fault:
            raise InputError(self._broken(row, field, str(fault.strerror))) from None
        if len(data) != size:
            raise InputError(self._broken(row, field, f"{len(data)} of {size} bytes could be read, the shard is cut"))
        return data

    def meta(self, row: int) -> dict[str, Any]:
        """The json of a sample, see records.py."""
        text = self.raw(row, "json")
        try:
            meta = json.loads(text)
            version = meta["schema_version"]
        except (ValueError, LookupError, TypeError) as fault:
            raise InputError(self._broken(row, "json", f"not the json of a sample ({fault})")) from None
        if version != SAMPLE_SCHEMA:
            raise InputError(self._broken(row, "json", f"schema version {version!r}, known is {SAMPLE_SCHEMA}"))
        return meta

    def sample(self, row: int) -> Sample:
        """A decoded sample; its image is the caller's own copy."""
        image = self.cache.get(row)
        if image is None:
            data = self.raw(row, "image")
            try:
                image = decode_image(data, self.rules)
            except InputError as mistake:
                raise InputError(self._broken(row, "image", str(mistake))) from None
            self.cache.put(row, image)
        return Sample(self.key(row), self.index.source, {"image": image}, self.meta(row))

    def _broken(self, row: int, field: str, reason: str) -> str:
        return f"{self.location(row, field)}: {reason}. Check with: mmzoo data lint {self.index.folder}"

    def _handle(self, path: Path) -> int:
        if path not in self._handles:
            self._handles[path] = os.open(path, os.O_RDONLY)
            if len(self._handles) > MAX_OPEN_FILES:
                os.close(self._handles.popitem(last=False)[1])
        self._handles.move_to_end(path)
        return self._handles[path]

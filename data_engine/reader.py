"""Random access to the samples of a shard folder by byte offset, from any process.

Reads with `pread`, so that processes may share a handle after a fork; a copy sent to another process opens its own.
"""

from __future__ import annotations

import errno
import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_engine.broken_samples import BrokenSampleError, Fault
from data_engine.code_fields import CODES, CodesField
from data_engine.decode import DecodeRules, decode_image
from data_engine.index import KEY_BYTES, SamplePlace, ShardIndex, key_in_header
from data_engine.record_members import decode_field, unpack_record
from data_engine.records import RECORD_SCHEMA, RECORDS, SAMPLE_SCHEMA, Sample
from data_engine.shards import BLOCK
from data_engine.stored_sample import StoredSample
from mmzoo.errors import InputError

SCAN_BYTES = 2**19  # one read of a scan; larger ones leave the processor's cache


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
    """Members and decoded samples of an index, by row. Every error names source, shard, key, byte offset and reason.

    BrokenSampleError: the sample's own bytes are damaged. InputError: the shard itself is gone or cut.
    """

    def __init__(self, index: ShardIndex, rules: DecodeRules | None = None, cache_bytes: int = 0) -> None:
        self.index = index
        self.rules = rules or DecodeRules()
        self.cache = ImageCache(cache_bytes)
        self._codes = CodesField.in_index(index.content) if CODES in index.fields else None
        self._holds_records = index.content.get("kind") == RECORDS
        self._handles: OrderedDict[int, int] = OrderedDict()

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

    def location(self, row: int, field: str | None = None) -> str:
        """Where a row lies (`field` None: its first member), for messages: source, shard, key, byte offset."""
        return self.fault(row, field or self.index.fields[0], "").where

    def fault(self, row: int, field: str, reason: str) -> Fault:
        """The record of a fault in a member; its key is "?" where the shard cannot be read."""
        path, offset, _ = self.index.place(row, field)
        try:
            key = self.index.key(row)
        except OSError:
            key = "?"
        return Fault(self.index.source, path.name, key, offset, reason)

    def key(self, row: int) -> str:
        """Key of a row, read from the header of its first member."""
        shard, offset, _ = self.index.span(row, self.index.fields[0])
        return key_in_header(self._read(row, shard, offset - BLOCK, BLOCK))

    def size(self, row: int) -> int:
        """Bytes of the first member of a row."""
        return self.index.span(row, self.index.fields[0])[2]

    def raw(self, row: int, field: str) -> bytes:
        """The stored bytes of a member, e.g. field "image" or "json"."""
        return self._read(row, *self.index.span(row, field))

    def read_at(self, row: int, shard: int, offset: int, size: int) -> bytes:
        """Any bytes of a shard; `row`: the one that an error names."""
        return self._read(row, shard, offset, size)

    def scan(self, rows: Sequence[int] | np.ndarray, field: str) -> Iterator[bytes]:
        """The stored bytes of a member of many rows: neighbours in a shard come with one large read.

        For rows in stored order; any other order gives the same bytes, slower.
        """
        buffer = memoryview(bytearray(SCAN_BYTES))
        open_shard, start, stop = -1, 0, 0
        for row, shard, offset, size in zip(rows, *self.index.spans(rows, field), strict=True):
            if shard != open_shard or offset < start or offset + size > stop:
                open_shard, start = shard, offset
                stop = start + self._read_into(row, shard, start, buffer)
            if offset + size <= stop:
                yield bytes(buffer[offset - start : offset - start + size])
            else:
                yield self._read(row, shard, offset, size)

    def meta(self, row: int) -> dict[str, Any]:
        """The json of a sample, see records.py."""
        return self.parsed(row, self.raw(row, "json"))

    def sample(self, row: int, place: SamplePlace | None = None) -> Sample:
        """A decoded sample; its image is the caller's own copy. `place`: where it lies, if known already."""
        key, members = self.members(row, place)
        if self._holds_records:
            return self._record(row, key, members)
        fields: dict[str, Any] = {}
        if "image" in members:
            fields["image"] = self._image(row, members["image"])
        if self._codes is not None:
            try:
                fields[CODES] = self._codes.unpack(members[CODES])
            except InputError as mistake:
                raise self.broken(row, CODES, str(mistake)) from None
        return Sample(key, self.index.source, fields, self.parsed(row, members["json"]))

    def stored(self, row: int) -> StoredSample:
        """A sample of a record shard as it was stored, nothing decoded."""
        key, members = self.members(row)
        try:
            return unpack_record(key, members)
        except InputError as mistake:
            raise self.broken(row, "json", str(mistake)) from None

    def _record(self, row: int, key: str, members: dict[str, bytes]) -> Sample:
        meta = self.parsed(row, members["json"])
        fields: dict[str, Any] = {}
        field = "json"
        try:
            stored = unpack_record(key, members)
            for field, data in members.items():
                if field == "image":
                    fields[field] = self._image(row, data)
                elif field != "json":
                    fields[field] = decode_field(field, data, self.rules)
        except BrokenSampleError:
            raise
        except InputError as mistake:
            raise self.broken(row, field, str(mistake)) from None
        typed = {"conversation": stored.conversation, "regions": stored.regions}
        return Sample(key, stored.source, {**fields, **typed, "text": stored.text, "number": stored.number}, meta)

    def _image(self, row: int, data: bytes) -> np.ndarray:
        image = self.cache.get(row)
        if image is None:
            try:
                image = decode_image(data, self.rules)
            except InputError as mistake:
                raise self.broken(row, "image", str(mistake)) from None
            self.cache.put(row, image)
        return image

    def members(self, row: int, place: SamplePlace | None = None) -> tuple[str, dict[str, bytes]]:
        """Key and members of a sample, by field, with one read: they lie side by side, each behind its header."""
        shard, offsets, sizes = place or self.index.places([row])[0]
        start, end = offsets[0] - BLOCK, offsets[-1] + sizes[-1]
        if not all(sizes):  # a field that a sample lacks, as only records have
            end = max(offset + size for offset, size in zip(offsets, sizes, strict=True) if size)
        data = self._read(row, shard, start, end - start)
        members = {
            field: data[offset - start : offset - start + size]
            for field, offset, size in zip(self.index.fields, offsets, sizes, strict=True)
            if size
        }
        return key_in_header(data[:KEY_BYTES]), members

    def parsed(self, row: int, text: bytes) -> dict[str, Any]:
        """The json member of a row as an object. BrokenSampleError: it is none, or of another schema."""
        try:
            meta = json.loads(text.decode("utf-8"))
            version = meta["schema_version"]
        except (ValueError, LookupError, TypeError, RecursionError) as fault:
            raise self.broken(row, "json", f"not the json of a sample ({fault})") from None
        known = RECORD_SCHEMA if self._holds_records else SAMPLE_SCHEMA
        if version != known:
            raise self.broken(row, "json", f"schema version {version!r}, known is {known}")
        return meta

    def broken(self, row: int, field: str, reason: str) -> BrokenSampleError:
        """The error of a fault in a member."""
        return BrokenSampleError(self.fault(row, field, reason), self.index.remedy)

    def _read(self, row: int, shard: int, offset: int, size: int) -> bytes:
        """`size` bytes of a shard, for a row."""
        handle = self._handle(row, shard)
        try:
            data = os.pread(handle, size, offset)
        except OSError as fault:
            raise self._unreadable(row, fault) from None
        if len(data) != size:
            raise self._shard_fault(row, f"{len(data)} of {size} bytes could be read, the shard is cut")
        return data

    def _read_into(self, row: int, shard: int, offset: int, buffer: memoryview) -> int:
        """Fills a buffer from a shard, for a row; how many bytes came."""
        handle = self._handle(row, shard)
        try:
            return os.preadv(handle, [buffer], offset)
        except OSError as fault:
            raise self._unreadable(row, fault) from None

    def _unreadable(self, row: int, fault: OSError) -> InputError:
        if fault.errno == errno.EIO:  # a bad sector takes the samples that lie on it, not the run
            return self.broken(row, self.index.fields[0], str(fault.strerror))
        return self._shard_fault(row, str(fault.strerror))

    def _shard_fault(self, row: int, reason: str) -> InputError:
        return InputError(f"{self.location(row)}: {reason}. Check with: mmzoo data lint {self.index.folder}")

    def _handle(self, row: int, shard: int) -> int:
        handle = self._handles.get(shard)
        if handle is None:
            while len(self._handles) >= self.index.max_open:
                os.close(self._handles.popitem(last=False)[1])
            try:
                handle = self._handles[shard] = self.index.open_shard(shard)
            except OSError as fault:
                raise self._shard_fault(row, str(fault.strerror)) from None
        else:
            self._handles.move_to_end(shard)
        return handle

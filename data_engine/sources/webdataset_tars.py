"""Existing webdataset tars. Members are read where they lie; tars of ours with records come back as they went in."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_engine.record_members import unpack_record
from data_engine.records import RECORD_SCHEMA
from data_engine.sources.annotation_rows import Row
from data_engine.sources.llava import LISTS, read_turns
from data_engine.sources.source import Source
from data_engine.stored_sample import StoredFile, StoredSample, placeholder_fault
from mmzoo.errors import InputError

IMAGES = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "bmp", "gif")


@dataclass(frozen=True, slots=True)
class TarSample:
    """The members that lie together under one key: by extension, lower case, where their bytes are."""

    key: str
    place: str
    members: dict[str, StoredFile]


def tar_samples(tar: Path) -> Iterator[TarSample]:
    """The samples of an uncompressed tar, as webdataset groups them. InputError: damaged, cut, compressed, links, or
    sparse members, whose bytes do not lie there as they are.
    """
    current: TarSample | None = None
    try:
        with tarfile.open(tar, "r:") as archive:
            while (info := archive.next()) is not None:
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    raise InputError(
                        f"{tar}: member {info.name!r} is a link, a device or sparse. Pack plain files only"
                    )
                folder, slash, base = info.name.rpartition("/")
                stem, _, extension = base.partition(".")
                key = f"{folder}{slash}{stem}"
                if current is None or current.key != key:
                    if current is not None:
                        yield current
                    current = TarSample(key, f"{tar}, key {key}", {})
                if extension.lower() in current.members:
                    raise InputError(f"{current.place}: member .{extension} is there twice")
                current.members[extension.lower()] = StoredFile(info.name, tar, info.offset_data, info.size)
            _check_end(tar, archive.offset)
    except (tarfile.TarError, OSError, EOFError) as fault:
        raise InputError(f"cannot read {tar}: {fault}. Is it a whole, uncompressed tar?") from None
    if current is not None:
        yield current


def _check_end(tar: Path, offset: int) -> None:
    """tarfile takes a damaged header, and a tar that is cut between members, for the end: ReadError where no mark of
    the end is at `offset` (bytes).
    """
    if offset > tar.stat().st_size:
        raise tarfile.ReadError("unexpected end of data")
    with tar.open("rb") as file:
        file.seek(offset)
        mark = file.read(tarfile.BLOCKSIZE)
    if len(mark) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it has no end mark at byte {offset}, so it was cut")
    if any(mark):
        raise tarfile.ReadError(f"damaged header at byte {offset}")


@dataclass(frozen=True, kw_only=True)
class WebdatasetSource(Source):
    """`folder`, `pattern`: which tars, in the order of their names. `text`: extension of a caption, e.g. "txt".

    An image is a member under a usual extension; json members go to meta, `conversations` and `messages` in them to
    the conversation. `ignore`: extensions that are left out; any other one is an error.
    """

    folder: Path
    pattern: str = "*.tar"
    text: str = "txt"
    ignore: tuple[str, ...] = ()

    def samples(self) -> Iterator[StoredSample]:
        """See Source."""
        tars = sorted(self.folder.glob(self.pattern))
        if not tars:
            raise InputError(f"no {self.pattern} in {self.folder}. Name the folder of the tars")
        number = 0
        for tar in tars:
            for found in tar_samples(tar):
                number += 1
                yield self._sample(number, f"{tar.name}, key {found.key}", found)

    def _sample(self, number: int, origin: str, found: TarSample) -> StoredSample:
        row = read_member_json(found) if "json" in found.members else Row(found.place, number, {})
        if row.values.get("schema_version") == RECORD_SCHEMA and "conversation" in row.values:
            return self._record(number, origin, found, row)
        left = set(found.members) - {*IMAGES, "json", self.text, *self.ignore}
        if left:
            raise row.fail(f"member .{min(left)} has no place in a sample. List it under `ignore`, or rename it")
        images = tuple(found.members[name] for name in sorted(found.members) if name in IMAGES)
        turns = read_turns(row) if any(name in row.values for name in LISTS) else ()
        fault = placeholder_fault(turns, len(images)) if turns else None
        if fault:
            raise row.fail(fault)
        text = read_text(found, self.text) if self.text in found.members else None
        meta = {**row.rest(*LISTS), "key": found.key}
        return self.sample(number, origin, images=images, text=text, conversation=turns, meta=meta)

    def _record(self, number: int, origin: str, found: TarSample, row: Row) -> StoredSample:
        try:
            mask = row.values["mask"]
            entries = [*row.values["images"], *row.values["rasters"], *([mask] if mask else [])]
            members = {entry["field"]: found.members[entry["extension"]].read() for entry in entries}
            stored = unpack_record(found.key, {**members, "json": found.members["json"].read()})
        except (InputError, LookupError, TypeError) as fault:
            raise row.fail(f"damaged record ({fault})") from None
        fault = placeholder_fault(stored.conversation, len(stored.images)) if stored.conversation else None
        if fault:
            raise row.fail(fault)
        kept = self.sample(number, origin)
        return replace(stored, key=kept.key, source=self.name, origin=stored.origin or origin)


def read_member_json(found: TarSample) -> Row:
    """The json member as a row. InputError: not UTF-8, not JSON, not an object."""
    try:
        value: Any = json.loads(found.members["json"].read().decode("utf-8"))
    except (ValueError, RecursionError) as fault:
        raise InputError(f"{found.place}: json cannot be parsed ({fault})") from None
    if not isinstance(value, dict):
        raise InputError(f"{found.place}: json is not an object")
    return Row(found.place, 1, value)


def read_text(found: TarSample, extension: str) -> str:
    """A text member. InputError: not UTF-8."""
    try:
        return found.members[extension].read().decode("utf-8").strip()
    except UnicodeDecodeError as fault:
        raise InputError(f"{found.place}: .{extension} is not UTF-8 ({fault.reason})") from None

"""Whether the members of a sample fit together and are what its json says: an image, codes, or a record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from data_engine.code_fields import CODES, CODES_EXTENSION, CodesField
from data_engine.decode import decode_image, read_header
from data_engine.lint_records import is_record, record_faults
from data_engine.records import RECORDS, SAMPLE_KEYS, SAMPLE_SCHEMA
from data_engine.tar_groups import IMAGE_EXTENSIONS, Finding, Group
from mmzoo.errors import InputError


def content_faults(shard: str, group: Group, codes: CodesField | None) -> Iterator[Finding]:
    """The faults of a group; `codes`: what its codes must be, where the shards hold codes."""
    if codes:
        yield from _lint_codes(shard, group, codes)
        return
    members = {member.extension: member for member in group.members}
    if "json" not in members or not is_record(members["json"].data):
        yield from _lint_group(shard, group)
        return
    data = {extension: member.data for extension, member in members.items()}
    if len(members) < len(group.members):
        yield Finding(shard, group.key, group.offset, "two members under one extension")
    for extension, what in record_faults(group.key, data):
        yield Finding(shard, group.key, members[extension].offset if extension in members else group.offset, what)


def kind_of(group: Group, codes: CodesField | None) -> str:
    """What a sound group is a sample of, as an index names it."""
    if codes:
        return CODES
    return RECORDS if any(each.extension == "json" and is_record(each.data) for each in group.members) else "images"


def _lint_codes(shard: str, group: Group, field: CodesField) -> Iterator[Finding]:
    """The faults of a sample of codes: one member of codes as the index describes them, and one json."""
    for name, extension in ((CODES, CODES_EXTENSION), ("json", "json")):
        members = [member for member in group.members if member.extension == extension]
        if len(members) != 1:
            what = f"missing pair member: no {name}" if not members else f"{len(members)} {name} members under one key"
            yield Finding(shard, group.key, group.offset, what)
        for member in members[:1]:
            what = _codes_fault(member.data, field) if name == CODES else _read_json(member.data)
            if isinstance(what, str):
                yield Finding(shard, group.key, member.offset, what)


def _codes_fault(data: bytes, field: CodesField) -> str | None:
    try:
        field.unpack(data)
    except InputError as mistake:
        return str(mistake)
    return None


def _lint_group(shard: str, group: Group) -> Iterator[Finding]:
    images = [member for member in group.members if member.extension.rpartition(".")[2] in IMAGE_EXTENSIONS]
    records = [member for member in group.members if member.extension.rpartition(".")[2] == "json"]
    meta = _read_json(records[0].data) if records and records[0].data else None
    if isinstance(meta, str):  # first: without its json a record looks like an image with too many members
        yield Finding(shard, group.key, records[0].offset, meta)
    for name, members in (("image", images), ("json", records)):
        if len(members) != 1:
            what = f"missing pair member: no {name}" if not members else f"{len(members)} {name} members under one key"
            yield Finding(shard, group.key, group.offset, what)
    for member in group.members:
        if not member.data:
            yield Finding(shard, group.key, member.offset, f"zero-length member .{member.extension}")
    if images and images[0].data:
        for what in _image_faults(images[0].data, meta if isinstance(meta, dict) else None):
            yield Finding(shard, group.key, images[0].offset, what)


def _read_json(data: bytes) -> dict[str, Any] | str:
    """The json of a sample, or what is wrong with it."""
    try:
        meta = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        return "json is not UTF-8"
    except (ValueError, RecursionError) as fault:
        return f"json cannot be parsed: {fault}"
    if not isinstance(meta, dict):
        return "json is not an object"
    if meta.get("schema_version") != SAMPLE_SCHEMA:
        return f"unknown schema version {meta.get('schema_version')!r}, known is {SAMPLE_SCHEMA}"
    missing = [key for key in SAMPLE_KEYS if key not in meta]
    return f"json lacks {', '.join(missing)}" if missing else meta


def _image_faults(data: bytes, meta: dict[str, Any] | None) -> Iterator[str]:
    if meta is not None and hashlib.sha256(data).hexdigest() != meta["sha256"]:
        yield "sha256 of the image differs from its json: the bytes were changed"
    try:
        header = read_header(data)
        height, width, _ = decode_image(data).shape
    except InputError as mistake:
        yield str(mistake)
        return
    if meta is not None:
        found = {"format": header.format, "mode": header.mode, "width": width, "height": height}
        for name, value in found.items():
            if meta[name] != value:
                yield f"json says {name} {meta[name]!r}, the image has {value!r}"

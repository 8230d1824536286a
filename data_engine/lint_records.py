"""Whether a record (record_members.py) is sound: every file that its json lists is there, unchanged, and decodes."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from data_engine.file_facts import image_facts, mask_facts, raster_facts
from data_engine.record_members import read_record, unpack_record
from data_engine.records import RECORD_SCHEMA
from mmzoo.errors import InputError

RECORD_EXTENSION = re.compile(r"(image|raster)[1-9]\d*\.\w+|(raster|mask)\.\w+", re.IGNORECASE)


def is_record(data: bytes) -> bool:
    """Whether the json of a sample says that it is a record."""
    try:
        content = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("schema_version") == RECORD_SCHEMA


def record_faults(key: str, members: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    """(extension of the member, what is wrong with it) of the members of a record, by extension."""
    try:
        entries = _entries(read_record(members["json"]))
        by_field = {entry["field"]: members.get(entry["extension"], b"") for entry in entries}
        unpack_record(key, {**by_field, "json": members["json"]})
    except (InputError, LookupError, TypeError, AttributeError) as fault:
        yield "json", str(fault) if isinstance(fault, InputError) else f"json of the record is incomplete ({fault})"
        return
    listed = {entry["extension"] for entry in entries}
    for extension in members:
        if extension != "json" and extension not in listed:
            yield extension, f"member .{extension} is not listed in the json"
    for entry in entries:
        yield from ((entry["extension"], what) for what in _file_faults(entry, members[entry["extension"]]))


def _entries(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [*content["images"], *([content["mask"]] if content["mask"] else []), *content["rasters"]]


def _file_faults(entry: dict[str, Any], data: bytes) -> Iterator[str]:
    try:
        if entry["field"].startswith("raster"):
            facts = raster_facts(data)[1]
        else:
            facts = mask_facts(data)[1] if entry["field"] == "mask" else image_facts(data, Counter())[1]
    except InputError as mistake:
        yield str(mistake)
        return
    for name, value in facts.items():
        if entry.get(name) != value:
            what = "the bytes were changed" if name == "sha256" else f"the file has {value!r}"
            yield f"json says {name} {entry.get(name)!r}, {what}"

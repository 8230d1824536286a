"""A stored sample as the members of a webdataset sample, and back.

    <key>.json                 always, and first: RECORD_SCHEMA, UTF-8, keys sorted
    <key>.jpg, <key>.image1.png, ...   images, in order         field image, image1, ...
    <key>.mask.png             one integer a pixel              field mask
    <key>.raster.tif, <key>.raster1.tif, ...                    field raster, raster1, ...

The json holds `source, origin, license, text, number, conversation` [{role, text}], `regions` [{label, box, quad,
polygons, rle, ignore, image}; what is absent is left out], `meta`, and of each file (`images`, `mask`, `rasters`) its
`field`, `extension`, `name` and what file_facts.py says. Coordinates: stored_sample.py.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_engine.decode import DecodeRules, decode_image
from data_engine.file_facts import decode_mask, decode_raster, image_facts, mask_facts, raster_facts
from data_engine.record_checks import check_grids, check_regions, check_stated_size
from data_engine.records import RECORD_SCHEMA
from data_engine.stored_sample import Region, StoredFile, StoredSample, Turn
from mmzoo.errors import InputError


@dataclass(frozen=True, slots=True)
class RecordMembers:
    """What is written of a sample: by field, (extension, bytes); `content` is the parsed json."""

    members: dict[str, tuple[str, bytes]]
    content: dict[str, Any]

    @property
    def image_sizes(self) -> list[tuple[int, int]]:
        """(width, height) of each image, px. Rasters are no images: no language model is shown them as they are."""
        return [(entry["width"], entry["height"]) for entry in self.content["images"]]

    @property
    def extent(self) -> tuple[int, int]:
        """(width, height) of the first image or else raster, px; (0, 0) without either."""
        shown = [*self.content["images"], *self.content["rasters"]]
        return (shown[0]["width"], shown[0]["height"]) if shown else (0, 0)

    @property
    def hashes(self) -> list[str]:
        """sha256 of each image and raster: what must not lie in two splits."""
        return [entry["sha256"] for name in ("images", "rasters") for entry in self.content[name]]


def pack_record(sample: StoredSample, rules: Counter[str] | None = None) -> RecordMembers:
    """Reads and judges the files of a sample. InputError, one line with the file's name: absent, damaged, not fitting.

    `rules` counts image rules, see decode.py.
    """
    rules = Counter() if rules is None else rules
    members: dict[str, tuple[str, bytes]] = {"json": ("json", b"")}
    images = [_entry(members, _numbered("image", number), file, rules) for number, file in enumerate(sample.images)]
    mask = _entry(members, "mask", sample.mask, rules) if sample.mask else None
    rasters = [_entry(members, _numbered("raster", number), file, rules) for number, file in enumerate(sample.rasters)]
    check_grids(mask, images, rasters)
    check_stated_size(sample, images)
    check_regions(sample, images or rasters)
    content = {
        "schema_version": RECORD_SCHEMA,
        "source": sample.source,
        "origin": sample.origin,
        "license": sample.license,
        "images": images,
        "mask": mask,
        "rasters": rasters,
        "conversation": [{"role": turn.role, "text": turn.text} for turn in sample.conversation],
        "regions": [_region_json(region) for region in sample.regions],
        "text": sample.text,
        "number": sample.number,
        "meta": dict(sample.meta),
    }
    members["json"] = ("json", _json_bytes(content))
    return RecordMembers(members, content)


def unpack_record(key: str, members: Mapping[str, bytes]) -> StoredSample:
    """The sample of members by field. InputError: the json is none of a record, or lists files that are not there."""
    content = read_record(members["json"])
    try:
        _check_types(content)
        return StoredSample(
            key=key,
            source=content["source"],
            images=tuple(_file(entry, members) for entry in content["images"]),
            rasters=tuple(_file(entry, members) for entry in content["rasters"]),
            mask=_file(content["mask"], members) if content["mask"] else None,
            conversation=tuple(Turn(turn["role"], turn["text"]) for turn in content["conversation"]),
            regions=tuple(_region(entry) for entry in content["regions"]),
            text=content["text"],
            number=content["number"],
            license=content["license"],
            origin=content["origin"],
            meta=content["meta"],
        )
    except InputError:
        raise
    except (LookupError, TypeError, ValueError) as fault:
        raise InputError(f"json of the sample is incomplete ({type(fault).__name__}: {fault})") from None


def _check_types(content: Mapping[str, Any]) -> None:
    """TypeError: a value of another type than pack_record writes."""
    texts = [content["source"], content["origin"], content["text"] or "", content["license"] or ""]
    texts += [turn["text"] for turn in content["conversation"]]
    texts += [entry["label"] for entry in content["regions"]]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{next(text for text in texts if not isinstance(text, str))!r:.40} where a text is due")
    if not isinstance(content["meta"], dict) or not isinstance(content["number"], int | float | None):
        raise TypeError("meta is no object, or number is none")


def read_record(data: bytes) -> dict[str, Any]:
    """The parsed json of a record. InputError: not UTF-8, not JSON, another schema."""
    try:
        content = json.loads(data.decode("utf-8"))
        version = content["schema_version"]
    except (ValueError, LookupError, TypeError, RecursionError) as fault:
        raise InputError(f"not the json of a sample ({fault})") from None
    if version != RECORD_SCHEMA:
        raise InputError(f"schema version {version!r}, known for records is {RECORD_SCHEMA}")
    return content


def decode_field(field: str, data: bytes, rules: DecodeRules) -> np.ndarray:
    """The pixels of a file member: see records.Sample. InputError: damaged."""
    if field.startswith("raster"):
        return decode_raster(data)
    return decode_mask(data) if field == "mask" else decode_image(data, rules)


def _numbered(name: str, number: int) -> str:
    return f"{name}{number}" if number else name


def _entry(members: dict[str, tuple[str, bytes]], field: str, file: StoredFile, rules: Counter[str]) -> dict[str, Any]:
    """The entry of a file in the json; its bytes go to `members`."""
    try:
        data = file.read()
        if field.startswith("raster"):
            extension, facts = raster_facts(data)
        else:
            extension, facts = mask_facts(data) if field == "mask" else image_facts(data, rules)
    except OSError as fault:
        raise InputError(f"{file.name}: {fault.strerror or fault}") from None
    except InputError as mistake:
        raise InputError(f"{file.name}: {mistake}") from None
    extension = extension if field == "image" else f"{field}.{extension}"
    members[field] = (extension, data)
    return {"field": field, "extension": extension, "name": file.name, **facts}


def _region_json(region: Region) -> dict[str, Any]:
    entry: dict[str, Any] = {"label": region.label, "box": region.box, "quad": region.quad, "rle": region.rle}
    entry |= {"polygons": region.polygons or None, "ignore": region.ignore or None, "image": region.image or None}
    return {name: value for name, value in entry.items() if value is not None}


def _region(entry: Mapping[str, Any]) -> Region:
    return Region(
        label=entry["label"],
        box=tuple(entry["box"]) if "box" in entry else None,
        quad=tuple((x, y) for x, y in entry["quad"]) if "quad" in entry else None,  # pyright: ignore[reportArgumentType]
        polygons=tuple(tuple((x, y) for x, y in polygon) for polygon in entry.get("polygons", ())),
        rle=entry.get("rle"),
        ignore=entry.get("ignore", False),
        image=entry.get("image", 0),
    )


def _file(entry: Mapping[str, Any], members: Mapping[str, bytes]) -> StoredFile:
    if not members.get(entry["field"]):
        raise InputError(f"the json lists {entry['field']}, the sample has no such member")
    return StoredFile(entry["name"], data=members[entry["field"]])


def _json_bytes(content: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(content, ensure_ascii=False, sort_keys=True, allow_nan=False).encode()
    except (TypeError, ValueError, UnicodeEncodeError) as fault:
        raise InputError(f"{content['origin'] or content['source']}: cannot be written as JSON ({fault})") from None

"""A row: what the index and the card need to know of a record, taken from its json and never from its pixels.

`key, source, license`; `places` [(field, offset of the bytes from the sample's start, size)] in bytes, and their
`extensions`; `bytes`, headers and padding included; `text`, characters; `sizes` [(width, height)] of the images and
`extent` of what is shown first, px; `hashes`, which decide its split; `names` of its files, for groups; `formats`,
`labels` {label: regions}, `turns`, `fields` that it has.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_engine.index import key_hash
from data_engine.record_members import RecordMembers, read_record, unpack_record
from data_engine.sample_facts import fact_arrays
from data_engine.shards import BLOCK, ShardWriter, padded
from data_engine.stored_sample import StoredSample

FIELD_ORDER = ("json", "image", "mask", "raster")
EXTENT = ("width", "height")
Place = tuple[int, int]  # number of a shard, offset of a sample in it, bytes


def record_row(sample: StoredSample, record: RecordMembers, places: Sequence[tuple[str, int, int]]) -> dict[str, Any]:
    """The row of a sample whose members lie at `places`."""
    content = record.content
    spoken = json.dumps([content["conversation"], content["text"]], ensure_ascii=False)
    return {
        "key": sample.key,
        "source": sample.source,
        "places": places,
        "extensions": [extension for extension, _ in record.members.values()],
        "bytes": sum(BLOCK + padded(size) for _, _, size in places),
        "text": sample.text_characters,
        "sizes": record.image_sizes,
        "extent": record.extent,
        "hashes": record.hashes or [hashlib.sha256(spoken.encode("utf-8", "backslashreplace")).hexdigest()],
        "names": [file.name for file in sample.files[:1]],
        "license": sample.license,
        "formats": [entry.get("format", "GeoTIFF") for name in ("images", "rasters") for entry in content[name]],
        "labels": dict(Counter(region.label for region in sample.regions)),
        "turns": len(sample.conversation),
        "fields": sorted(_held(sample)),
    }


def _held(sample: StoredSample) -> set[str]:
    """The typed fields that a sample has."""
    names = ("images", "rasters", "mask", "conversation", "text", "number")
    held = {name for name in names if getattr(sample, name) not in (None, ())}
    shapes = {"boxes": "box", "quads": "quad", "polygons": "polygons", "run_lengths": "rle"}
    return held | {name for name, shape in shapes.items() if any(getattr(region, shape) for region in sample.regions)}


def copy_record(writer: ShardWriter, key: str, members: Mapping[str, bytes]) -> tuple[dict[str, Any], Place]:
    """Writes a stored sample, `members` by field, as it is; its row and where it lies now.

    InputError: its json is none of a record, or lists files that are not there.
    """
    content = read_record(members["json"])
    sample = unpack_record(key, members)
    extensions = _extensions(content)
    record = RecordMembers({name: (extensions[name], members[name]) for name in extensions}, content)
    placed = writer.add(key, dict(record.members.values()))
    start = placed[0].offset - BLOCK
    places = [(name, place.offset - start, place.size) for name, place in zip(record.members, placed, strict=True)]
    return record_row(sample, record, places), (placed[0].shard, start)


def fields_by_extension(members: Mapping[str, bytes]) -> dict[str, bytes]:
    """The members of a sound record by field, of those by extension."""
    return {field: members[extension] for field, extension in _extensions(read_record(members["json"])).items()}


def _extensions(content: Mapping[str, Any]) -> dict[str, str]:
    """{field: extension} of the members that the json of a record lists, in their order, itself first."""
    entries = [*content["images"], *([content["mask"]] if content["mask"] else []), *content["rasters"]]
    return {"json": "json", **{entry["field"]: entry["extension"] for entry in entries}}


def row_fields(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields of an index of these rows, in the order of its columns."""
    return sorted({name for row in rows for name, _, _ in row["places"]}, key=_field_rank)


def _field_rank(name: str) -> tuple[int, int]:
    stem = name.rstrip("0123456789")
    return FIELD_ORDER.index(stem), int(name[len(stem) :] or 0)


def row_columns(
    rows: Sequence[Mapping[str, Any]], splits: Sequence[int], places: Sequence[Place]
) -> dict[str, np.ndarray]:
    """The columns of the index of these rows. `splits`: number of each row's split."""
    columns = {name: column for column, name in enumerate(row_fields(rows))}
    offsets, sizes = (np.zeros((len(rows), len(columns)), np.int64) for _ in range(2))
    for number, (row, (_, start)) in enumerate(zip(rows, places, strict=True)):
        for name, offset, size in row["places"]:
            offsets[number, columns[name]], sizes[number, columns[name]] = start + offset, size
    return {
        "shard": np.array([shard for shard, _ in places], np.int32),
        "offset": offsets,
        "size": sizes,
        "key_hash": np.array([key_hash(row["key"]) for row in rows], np.uint64),
        "split": np.array(splits, np.uint8),
        **fact_arrays([row["text"] for row in rows], [row["sizes"] for row in rows]),
        **{name: np.array([row["extent"][axis] for row in rows], np.int32) for axis, name in enumerate(EXTENT)},
    }

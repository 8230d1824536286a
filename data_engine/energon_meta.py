"""`.nv-meta` for a shard folder of ours, so that Megatron-Energon opens it as it is, without `energon prepare`.

Written as Energon 7.4 does: `.info.json` (samples of each shard), `split.yaml`, `dataset.yaml` (sample type and field
map), `index.sqlite` with `index.uuid` (where samples and members lie), and `<shard>.idx` beside each tar (offsets of
the samples, uint64, and the end). Energon splits by shard, so all samples must be in one split.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_engine.decode import EXTENSIONS
from data_engine.shards import END_OF_TAR, ShardFile
from mmzoo.errors import InputError

META_FOLDER = ".nv-meta"
IMAGE = ",".join(dict.fromkeys(EXTENSIONS.values()))
#: By sample type: the field map, and the typed fields that each sample must have for it.
FIELD_MAPS: dict[str, tuple[dict[str, str], set[str]]] = {
    "CaptioningSample": ({"image": IMAGE, "caption": "json[text]"}, {"images", "text"}),
    "VQASample": (
        {"image": IMAGE, "context": "json[conversation][0][text]", "answers": "json[conversation][1][text]"},
        {"images", "conversation"},
    ),
    "TextSample": ({"text": "json[text]"}, {"text"}),
    "ImageSample": ({"image": IMAGE}, {"images"}),
}
TABLES = """
CREATE TABLE samples (tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE, sample_index INTEGER NOT NULL,
    byte_offset INTEGER, byte_size INTEGER);
CREATE TABLE sample_parts (tar_file_id INTEGER, sample_index INTEGER, part_name TEXT, content_byte_offset INTEGER,
    content_byte_size INTEGER);
"""
INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full
    ON sample_parts(tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size);
"""


def prepared_type(folders: Sequence[Path]) -> str | None:
    """The sample type that all of these folders of ours were prepared for; None where one was for none, or another."""
    found = set()
    for folder in folders:
        try:
            content = yaml.safe_load((folder / META_FOLDER / "dataset.yaml").read_text(encoding="utf-8"))
            found.add(content["sample_type"]["__class__"])
        except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
            return None
    name = found.pop() if len(found) == 1 else None
    return name if name in FIELD_MAPS else None


def check_energon(sample_type: str, rows: Sequence[Mapping[str, Any]], splits: Sequence[str]) -> None:
    """InputError: samples that lack what the type needs, or more than one split."""
    needed = FIELD_MAPS[sample_type][1]
    for row in rows:
        lacking = needed - set(row["fields"])
        if lacking or ("conversation" in needed and row["turns"] != 2):
            what = f"no {min(lacking)}" if lacking else f"{row['turns']} turns, a question and an answer are due"
            raise InputError(f"energon: {sample_type} does not fit {row['key']}: {what}. Choose another type, or none")
    if len(set(splits)) > 1:
        raise InputError("energon: its splits are made of whole shards. Set val_fraction: 0 and build each split apart")


def write_energon(
    folder: Path, sample_type: str, split: str, shards: Sequence[ShardFile], samples: Sequence[Mapping[str, Any]]
) -> None:
    """Writes it. `samples`: key, shard (number), start and bytes in the shard, parts [(extension, offset, size)]."""
    meta = folder / META_FOLDER
    meta.mkdir()
    info = {"energon_version": None, "shard_counts": {shard.name: shard.samples for shard in shards}}
    (meta / ".info.json").write_text(json.dumps(info, indent=2))
    _yaml(meta / "split.yaml", {"split_parts": {split: [shard.name for shard in shards]}, "exclude": []})
    kind = {"__module__": "megatron.energon", "__class__": sample_type}
    _yaml(meta / "dataset.yaml", {"sample_type": kind, "field_map": FIELD_MAPS[sample_type][0]})
    _write_index(meta / "index.sqlite", samples)
    content = json.dumps([shard.sha256 for shard in shards])
    (meta / "index.uuid").write_text(str(uuid.uuid5(uuid.NAMESPACE_OID, content)))  # equal shards, equal name
    for number, shard in enumerate(shards):
        starts = [sample["start"] for sample in samples if sample["shard"] == number]
        ends = np.array([*starts, shard.bytes - len(END_OF_TAR)], np.uint64)
        (folder / f"{shard.name}.idx").write_bytes(ends.tobytes())


def sample_places(rows: Sequence[Mapping[str, Any]], places: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """The samples as `write_energon` takes them, from the rows of the parts and (shard, start) of each."""
    return [
        {
            "key": row["key"],
            "shard": shard,
            "start": start,
            "bytes": row["bytes"],
            "parts": [
                (extension, start + offset, size)
                for (_, offset, size), extension in zip(row["places"], row["extensions"], strict=True)
            ],
        }
        for row, (shard, start) in zip(rows, places, strict=True)
    ]


def _yaml(path: Path, content: Any) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _write_index(path: Path, samples: Sequence[Mapping[str, Any]]) -> None:
    numbers: dict[int, int] = {}  # samples so far, by shard
    database = sqlite3.connect(path)
    try:
        database.executescript(TABLES)
        for sample in samples:
            shard = sample["shard"]
            number = numbers[shard] = numbers.get(shard, -1) + 1
            row = (shard, sample["key"], number, sample["start"], sample["bytes"])
            database.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", row)
            parts = [(shard, number, *part) for part in sample["parts"]]
            database.executemany("INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)", parts)
        database.executescript(INDEXES)
        database.commit()
    finally:
        database.close()

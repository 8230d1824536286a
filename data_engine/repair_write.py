"""Writes what a repair keeps as a new shard folder: the bytes that were checked, in the order of the keys."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.build_config import PlacedSource
from data_engine.build_splits import joined_sets
from data_engine.flush import flush
from data_engine.index import key_hash, write_index
from data_engine.output_folder import REJECTED_FILE, REPAIRS_FILE
from data_engine.progress import tracked
from data_engine.record_folder import WrittenRecords, carry_energon, finish_records
from data_engine.record_rows import Place, copy_record, fields_by_extension
from data_engine.records import RECORDS
from data_engine.repair_plan import KeptSample, Repair, RepairPlan, digest_of
from data_engine.repair_splits import complete_splits
from data_engine.reshard_records import carried_notes
from data_engine.shards import MemberPlace, ShardWriter
from data_engine.sources.source import Source
from data_engine.splits import SPLITS, group_pattern, groups_of, join_copies
from mmzoo.errors import InputError

COMPUTED = ("schema_version", "samples", "shards", "columns")  # what write_index says itself


@dataclass(frozen=True, slots=True)
class RepairJob:
    """What is written into `folder`, which is empty. `content`: of the old index.json, None where it cannot be
    believed. `title`: name of the new set, where its samples name no single source. `shard_bytes`: size to stay below.
    `known`: {hash of a key: its split}; `val_fraction`, `group`: for samples whose split is lost.
    """

    source: Path
    content: Mapping[str, Any] | None
    folder: Path
    title: str
    shard_bytes: int
    known: Mapping[int, str]
    val_fraction: float | None = None
    group: str | None = None

    @property
    def old_splits(self) -> Mapping[str, Any]:
        """The entry `splits` of the old index."""
        return (self.content or {}).get("splits") or {}

    @property
    def split_names(self) -> list[str]:
        """The names of the splits."""
        return list(self.old_splits.get("names", SPLITS))


def write_repaired(job: RepairJob, plan: RepairPlan, repairs: Sequence[Repair], counts: Mapping[str, int]) -> int:
    """Fills the folder; how many samples got a split that the index did not know."""
    kept = [plan.kept[key] for key in sorted(plan.kept)]
    more = {"arguments": {"shard_bytes": job.shard_bytes}, "repaired": dict(counts)}
    records = plan.kind == RECORDS
    unknown = _write_records(job, kept, more) if records else _write_pairs(job, plan.kind or "images", kept, more)
    lines = [json.dumps(each.as_json(), ensure_ascii=False) for each in repairs]
    (job.folder / REPAIRS_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")
    for path in sorted(job.folder.rglob("*")):  # the damaged shards may be deleted next
        flush(path)
    return unknown


def _read(kept: Sequence[KeptSample]) -> Iterator[tuple[KeptSample, dict[str, bytes]]]:
    """The members of each sample by extension. InputError: they are no longer those that were checked."""
    for sample in tracked(kept, "writing samples", len(kept)):
        members = {}
        with sample.tar.open("rb") as file:
            for extension, offset, size in sample.members:
                file.seek(offset)
                members[extension] = file.read(size)
        if digest_of(members.values()) != sample.digest:
            raise InputError(f"{sample.tar} was changed while it was repaired. Run again when nothing writes to it")
        yield sample, members


def _write_pairs(job: RepairJob, kind: str, kept: Sequence[KeptSample], more: dict[str, Any]) -> int:
    """Image shards and code shards: one member and its json a sample."""
    places: list[list[MemberPlace]] = []
    metas: list[dict[str, Any]] = []
    with ShardWriter(job.folder, job.shard_bytes) as writer:
        for sample, members in _read(kept):
            ordered = sorted(members.items(), key=lambda item: item[0] == "json")
            places.append(writer.add(sample.key, dict(ordered)))
            metas.append(json.loads(members["json"]))

    def groups() -> list[str]:
        paths = [str(meta["path"]) for meta in metas]
        found = groups_of(paths, group_pattern(job.group or job.old_splits.get("group")))
        return join_copies(found, [str(meta["sha256"]) for meta in metas])

    splits, unknown = complete_splits([each.key for each in kept], job.known, groups, job.val_fraction)
    names = job.split_names
    columns = {
        "shard": np.array([placed[0].shard for placed in places], np.int32),
        "offset": np.array([[place.offset for place in placed] for placed in places], np.int64),
        "size": np.array([[place.size for place in placed] for placed in places], np.int64),
        "key_hash": np.array([key_hash(each.key) for each in kept], np.uint64),
        "split": np.array([names.index(split) for split in splits], np.uint8),
        **{side: np.array([meta[side] for meta in metas], np.int32) for side in ("width", "height")},
    }
    write_index(job.folder, _pair_description(job, kind, metas, splits) | more, writer.shards, columns)
    if (job.source / REJECTED_FILE).is_file():
        shutil.copyfile(job.source / REJECTED_FILE, job.folder / REJECTED_FILE)
    return unknown


def _pair_description(
    job: RepairJob, kind: str, metas: Sequence[Mapping[str, Any]], splits: Sequence[str]
) -> dict[str, Any]:
    """The old description with the new counts; without one, what the samples say themselves."""
    sources = {str(meta["source"]) for meta in metas}
    fresh = {"kind": kind, "source": sources.pop() if len(sources) == 1 else job.title}
    fresh |= {"fields": ["image", "json"], "rejected": 0}
    old = {name: value for name, value in (job.content or fresh).items() if name not in COMPUTED}
    formats = dict(sorted(Counter(str(meta["format"]) for meta in metas).items()))
    counts = {name: splits.count(name) for name in job.split_names}
    drawn = {"method": "hash", "val_fraction": job.val_fraction, "group": job.group}
    kept_splits = dict(job.old_splits) or {"names": job.split_names, **drawn}
    listed = {"formats": formats} if "formats" in old or job.content is None else {}
    return {**old, **listed, "splits": {**kept_splits, "counts": counts}}


def _write_records(job: RepairJob, kept: Sequence[KeptSample], more: dict[str, Any]) -> int:
    rows: list[dict[str, Any]] = []
    places: list[Place] = []
    with ShardWriter(job.folder, job.shard_bytes) as writer:
        for sample, members in _read(kept):
            row, place = copy_record(writer, sample.key, fields_by_extension(members))
            rows.append(row)
            places.append(place)
    placed = _placed(job, {row["source"] for row in rows})
    known = dict(job.known)
    for row in rows:  # a source with a fixed split needs no draw
        split = placed[row["source"]].split
        if split is not None:
            known.setdefault(key_hash(row["key"]), split)
    keys = [row["key"] for row in rows]
    splits, unknown = complete_splits(keys, known, lambda: joined_sets(rows, placed), job.val_fraction)
    old = {name: value for name, value in (job.content or {}).items() if name in ("source", "left_out")}
    drawn = {"names": job.split_names, "method": "hash", "val_fraction": job.val_fraction}
    description = {**old, "splits": dict(job.old_splits) or drawn, **more}
    counts = more["repaired"]
    notes = {**carried_notes([job.source], whole=not counts["left_out"] and not counts["lost"]), "repaired": counts}
    written = WrittenRecords(rows, splits, places, writer.shards, _rejected(job.source), notes)
    finish_records(job.folder, job.title, written, description)
    carry_energon(job.folder, [job.source], written)
    return unknown


def _placed(job: RepairJob, sources: set[str]) -> dict[str, PlacedSource]:
    """The sources as the build placed them, as far as the index says; a group that the user gives is for all."""
    listed = job.old_splits.get("placed", {})
    found = {}
    for name in sources:
        entry = listed.get(name, {})
        pattern = group_pattern(job.group or entry.get("group"))
        found[name] = PlacedSource(Source(name=name), "", entry.get("split"), pattern)
    return found


def _rejected(folder: Path) -> list[dict[str, str]]:
    """What the build had rejected. InputError: the list is damaged."""
    file = folder / REJECTED_FILE
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [{name: row[name] for name in ("source", "origin", "key", "reason")} for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, LookupError, TypeError) as fault:
        raise InputError(f"{file} cannot be read ({fault}). Move it away and repair again") from None

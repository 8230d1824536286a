"""The part of `mmzoo data reshard` and `merge` that is for record shards: index and card are made from the samples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_engine.index import ShardIndex
from data_engine.output_folder import CARD_FILE, REJECTED_FILE
from data_engine.progress import tracked
from data_engine.reader import ShardReader
from data_engine.record_folder import WrittenRecords, finish_records
from data_engine.record_rows import Place, copy_record
from data_engine.shards import ShardFile, ShardWriter
from data_engine.splits import SPLITS
from mmzoo.errors import InputError

Kept = tuple[str, int, int]  # key, number of its source, row there


def reshard_records(
    readers: Sequence[ShardReader], kept: Sequence[Kept], folder: Path, title: str, arguments: Mapping[str, Any]
) -> list[ShardFile]:
    """Writes the samples `kept`, sorted by key, with index and card, into `folder`. `arguments` holds shard_bytes.

    InputError: damaged json; a picture, or a text without one, in two splits.
    """
    rows: list[dict[str, Any]] = []
    places: list[Place] = []
    with ShardWriter(folder, arguments["shard_bytes"]) as writer:
        for key, number, row in tracked(kept, "writing samples", len(kept)):
            _, members = readers[number].members(row)
            try:
                written, place = copy_record(writer, key, members)
            except InputError as mistake:
                raise readers[number].broken(row, "json", str(mistake)) from None
            rows.append(written)
            places.append(place)
    sources = [reader.index for reader in readers]
    splits = [sources[number].splits[int(sources[number].column("split")[row])] for _, number, row in kept]
    check_one_split(rows, splits)
    whole = len(kept) == sum(index.count for index in sources)
    notes = carried_notes(sources) if whole else {}
    written = WrittenRecords(rows, splits, places, writer.shards, carried_rejected(sources), notes)
    description = {
        "rejected": sum(index.content.get("rejected", 0) for index in sources),
        "splits": {"names": list(SPLITS), "method": "kept"},
        "arguments": dict(arguments),
    }
    finish_records(folder, title, written, description)
    return writer.shards


def check_one_split(rows: Sequence[Mapping[str, Any]], splits: Sequence[str]) -> None:
    """InputError: a picture, or a text without one, that two splits hold."""
    first: dict[str, tuple[str, str]] = {}
    for row, split in zip(rows, splits, strict=True):
        for digest in row["hashes"]:
            other, other_split = first.setdefault(digest, (row["key"], split))
            if other_split != split:
                raise InputError(
                    f"leak: {other} ({other_split}) and {row['key']} ({split}) share a picture or a text. "
                    "Leave one out with --without"
                )


def carried_rejected(sources: Sequence[ShardIndex]) -> list[dict[str, str]]:
    """What the builds of these shards rejected, where their lists lie beside them."""
    found: list[dict[str, str]] = []
    for index in sources:
        file = index.folder / REJECTED_FILE
        if file.is_file():
            found += [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return found


def carried_notes(sources: Sequence[ShardIndex]) -> dict[str, Any]:
    """What the cards of all these shards count that their samples do not say by themselves: the image rules."""
    rules: Counter[str] = Counter()
    for index in sources:
        try:
            rules.update(json.loads((index.folder / CARD_FILE).read_bytes())["image_rules"])
        except (OSError, ValueError, LookupError, TypeError):
            return {}  # counted in part they would be wrong, so the card is silent
    return {"image_rules": dict(sorted(rules.items()))}

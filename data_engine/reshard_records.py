"""The part of `mmzoo data reshard` and `merge` that is for record shards: index and card are made from the samples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_engine.index import ShardIndex
from data_engine.output_folder import CARD_FILE, REJECTED_FILE
from data_engine.progress import tracked
from data_engine.reader import ShardReader
from data_engine.record_folder import WrittenRecords, carry_energon, finish_records
from data_engine.record_rows import Place, copy_record
from data_engine.shards import ShardFile, ShardWriter
from data_engine.splits import SPLITS
from mmzoo.errors import InputError

Kept = tuple[str, int, int]  # key, number of its source, row there


def reshard_records(
    readers: Sequence[ShardReader],
    kept: Sequence[Kept],
    folder: Path,
    title: str,
    arguments: Mapping[str, Any],
    left_out: Mapping[str, int],
) -> list[ShardFile]:
    """Writes the samples `kept`, sorted by key, with index and card, into `folder`. `arguments` holds shard_bytes,
    `left_out` is {check: samples} of the others.

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
    notes = carried_notes([index.folder for index in sources], whole)
    if left_out:
        notes["left_out"] = _added([notes.get("left_out", {}), left_out])
    notes["rejected"] = sum(index.content.get("rejected", 0) for index in sources)  # a URL gives the number alone
    written = WrittenRecords(rows, splits, places, writer.shards, carried_rejected(sources), notes)
    description = {
        "rejected": notes["rejected"],
        "splits": {"names": list(SPLITS), "method": "kept"},
        "arguments": dict(arguments),
    }
    finish_records(folder, title, written, description)
    carry_energon(folder, [index.folder for index in sources], written)
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


def carried_notes(folders: Sequence[Path], whole: bool) -> dict[str, Any]:
    """What the cards of these shards count that the samples do not say: what was left out, changed, repaired before.

    `whole`: no sample is left out now, so that their image rules add up, too.
    """
    cards = [_card(folder) for folder in folders]
    notes: dict[str, Any] = {}
    for name in ("left_out", "repaired"):
        if any(name in card for card in cards):
            notes[name] = _added(card.get(name, {}) for card in cards)
    changes = sorted({name for card in cards for name in card.get("transforms", {})})
    if changes:
        notes["transforms"] = {
            name: _added(card.get("transforms", {}).get(name, {}) for card in cards) for name in changes
        }
    if whole and all("image_rules" in card for card in cards):
        notes["image_rules"] = _added(card["image_rules"] for card in cards)
    return notes


def _card(folder: Path) -> dict[str, Any]:
    """The data card beside the shards; shards at a URL, and those of before, come without."""
    try:
        card = json.loads((folder / CARD_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(sorted(total.items()))

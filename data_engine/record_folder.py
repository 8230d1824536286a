"""What stands beside the tars of a record shard folder: the index, the data card and the list of what was rejected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_engine.data_card import card_page, make_card
from data_engine.energon_meta import check_energon, prepared_type, sample_places, write_energon
from data_engine.index import write_index
from data_engine.output_folder import CARD_FILE, CARD_PAGE, REJECTED_FILE
from data_engine.record_rows import Place, row_columns, row_fields
from data_engine.records import RECORDS
from data_engine.shards import ShardFile


@dataclass(frozen=True, slots=True)
class WrittenRecords:
    """Samples in finished shards, by key. `rows`: see record_rows.py; `splits`: names; `rejected`: source, origin, key,
    reason of what did not get in. `notes` go to the card.
    """

    rows: Sequence[Mapping[str, Any]]
    splits: Sequence[str]
    places: Sequence[Place]
    shards: Sequence[ShardFile]
    rejected: Sequence[Mapping[str, str]]
    notes: Mapping[str, Any]


def finish_records(folder: Path, title: str, written: WrittenRecords, description: Mapping[str, Any]) -> dict[str, Any]:
    """Writes index, card and list beside the tars in `folder`; returns the card.

    `description`: splits {names, ...}, arguments and what else index.json is to say; no path of this machine.
    """
    card = make_card(written.rows, written.splits, written.rejected, len(written.shards))
    names = description["splits"]["names"]
    sources = list(card["sources"])
    content = {
        "kind": RECORDS,
        "source": sources[0] if len(sources) == 1 else title,
        "sources": sources,
        "fields": row_fields(written.rows),
        "formats": card["formats"],
        "rejected": card["rejected"],
        **description,
        "splits": {**description["splits"], "counts": {name: card["splits"].get(name, 0) for name in names}},
    }
    columns = row_columns(written.rows, [names.index(split) for split in written.splits], written.places)
    card |= {"identity": write_index(folder, content, written.shards, columns), **written.notes}
    write_text(folder / CARD_FILE, json_text(card))
    write_text(folder / CARD_PAGE, card_page(card, title))
    if written.rejected:
        lines = [json.dumps(item, ensure_ascii=False) for item in written.rejected]
        write_text(folder / REJECTED_FILE, "\n".join(lines) + "\n")
    return card


def carry_energon(folder: Path, sources: Sequence[Path], written: WrittenRecords) -> None:
    """Writes `.nv-meta` for shards made of others, when all of these have it and one split is left; else none."""
    name = prepared_type(sources)
    if name and len(set(written.splits)) == 1:
        check_energon(name, written.rows, written.splits)
        write_energon(folder, name, written.splits[0], written.shards, sample_places(written.rows, written.places))


def json_text(content: Any) -> str:
    """JSON as our files hold it."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """A text file; what is not UTF-8 in a foreign name is written escaped."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")

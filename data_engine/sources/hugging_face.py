"""A Hugging Face `datasets` folder on disk (`save_to_disk`). Needs the package: pip install datasets.

Images stay the bytes that the arrow files hold; nothing is decoded or fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_engine.sources.annotation_rows import Row
from data_engine.sources.llava import LISTS, read_turns
from data_engine.sources.source import Source
from data_engine.stored_sample import StoredFile, StoredSample, placeholder_fault
from mmzoo.errors import InputError, suggestion

ROWS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class HuggingFaceSource(Source):
    """`folder`: what save_to_disk wrote; `part`: which split of a folder of several.

    Columns: `image` (an Image, or a list of them), `text`, or `conversation` in the layouts of llava.py; those of
    `ignore` are left out, all others go to meta.
    """

    folder: Path
    part: str | None = None
    image: str | None = None
    text: str | None = None
    conversation: str | None = None
    ignore: tuple[str, ...] = ()

    def samples(self) -> Iterator[StoredSample]:
        """See Source."""
        rows = self._rows()
        used = [name for name in (self.image, self.text, self.conversation) if name]
        for name in (*used, *self.ignore):
            if name not in rows.column_names:
                raise InputError(f"{self.folder} has no column {name!r}.{suggestion(name, rows.column_names)}")
        if not used:
            raise InputError(f"name a column of {self.folder}: image, text or conversation")
        plain = (values for table in rows.iter(ROWS_AT_ONCE) for values in table.to_pylist())
        for number, values in enumerate(plain, 1):
            row = Row(f"{self.folder}, row {number - 1}", number, values)
            yield self.sample(
                number, f"row {number - 1}", **self._fields(row), meta=_plain(row, row.rest(*used, *self.ignore))
            )

    def _rows(self) -> Any:
        try:
            import datasets
        except ModuleNotFoundError:
            raise InputError("kind hugging_face needs the package datasets. Try: pip install datasets") from None
        try:
            found = datasets.load_from_disk(str(self.folder))
        except (OSError, ValueError, LookupError, TypeError) as fault:
            raise InputError(f"{self.folder} is no folder of save_to_disk ({' '.join(str(fault).split())})") from None
        if isinstance(found, datasets.DatasetDict):
            if self.part not in found:
                raise InputError(f"{self.folder} has the parts {', '.join(map(str, found))}; name one as `part`")
            found = found[self.part]
        elif self.part is not None:
            raise InputError(f"{self.folder} has no parts, take out `part: {self.part}`")
        if not len(found):
            raise InputError(f"{self.folder} has no row. Mend its path, or take it out")
        return found.with_format("arrow")  # as stored: images are not decoded, nothing is cached

    def _fields(self, row: Row) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        images = row.values[self.image] if self.image else None
        entries = images if isinstance(images, list) else [images] if images else []
        fields["images"] = tuple(self._file(row, entry, number) for number, entry in enumerate(entries))
        if self.text:
            fields["text"] = row.require(self.text)
        if self.conversation:
            name = self.conversation
            key = next((key for key, (who, _) in LISTS.items() if who in _first(row.values[name])), "conversations")
            turns = read_turns(Row(row.place, row.number, {key: row.values[name]}))
            fault = placeholder_fault(turns, len(entries))
            if fault:
                raise row.fail(fault)
            fields["conversation"] = turns
        return fields

    def _file(self, row: Row, entry: Any, number: int) -> StoredFile:
        if not isinstance(entry, dict) or not (entry.get("bytes") or entry.get("path")):
            raise row.fail(f"column {self.image!r} holds no image. Is it of the type Image?")
        name = Path(entry.get("path") or f"row{row.number - 1}-{number}").name
        if entry.get("bytes"):
            return StoredFile(name, data=entry["bytes"])
        if "\0" in entry["path"]:
            raise row.fail(f"column {self.image!r}: {name!r} cannot be the name of a file")
        return StoredFile(name, Path(entry["path"]))


def _first(turns: Any) -> Any:
    return turns[0] if isinstance(turns, list) and turns and isinstance(turns[0], dict) else {}


def _plain(row: Row, values: dict[str, Any]) -> dict[str, Any]:
    """The values, when JSON can hold them."""
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as fault:
        raise row.fail(f"a column cannot be kept as JSON ({fault}). List it under `ignore`") from None
    return values

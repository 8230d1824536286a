"""Conversations in the layouts of LLaVA and ShareGPT, as JSON or JSON lines: text only, one image, several images.

A row has `conversations` [{from, value}] or `messages` [{role, content}], and `image` or `images`, a path or a list of
paths. Every image has one `<image>` in the text, in their order (LLaVA's data format; RSCoVLM spec 2.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_engine.sources.annotation_rows import Row, annotation_rows
from data_engine.sources.source import Source, file_in
from data_engine.stored_sample import IMAGE_PLACEHOLDER, StoredFile, StoredSample, Turn, placeholder_fault
from mmzoo.errors import suggestion

SPEAKERS = {
    **{"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"},
    **{"tool": "tool", "observation": "tool", "function_call": "assistant"},
}
LISTS = {"conversations": ("from", "value"), "messages": ("role", "content")}


@dataclass(frozen=True, kw_only=True)
class LlavaSource(Source):
    """`annotations`: the file; `images`: folder that its image paths are relative to, not needed for text.

    `missing_placeholder`: what to do with a row that has one image and no placeholder. "error", or "prefix": put one in
    front of the first turn of the user, as LLaVA-OneVision's data expects.
    """

    annotations: Path
    images: Path | None = None
    missing_placeholder: Literal["error", "prefix"] = "error"

    def samples(self) -> Iterator[StoredSample]:
        """See Source."""
        for row in annotation_rows(self.annotations):
            files = self._files(row)
            turns = self._with_placeholder(read_turns(row), len(files))
            fault = placeholder_fault(turns, len(files))
            if fault:
                lacks = fault.startswith("0 ") and len(files) == 1
                raise row.fail(f"{fault}. Mend the row{', or set missing_placeholder: prefix' if lacks else ''}")
            meta = row.rest("image", "images", *LISTS)
            yield self.sample(
                row.number, self.origin(row, self.annotations), images=files, conversation=turns, meta=meta
            )

    def _files(self, row: Row) -> tuple[StoredFile, ...]:
        if "video" in row.values or "videos" in row.values:
            raise row.fail("a video. Videos are not read: list its frames as images")
        held = {name: row.values[name] for name in ("image", "images") if row.values.get(name) is not None}
        if len(held) > 1:
            raise row.fail("both 'image' and 'images'. Which of them the conversation shows is not guessed: leave one")
        given = next(iter(held.values()), [])
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise row.fail(f"'image' is {given!r}, a path or a list of paths is due")
        if names and self.images is None:
            raise row.fail("an image, and the source has no `images`. Name the folder of images there")
        return tuple(file_in(self.images, name, row.place) for name in names) if self.images else ()

    def _with_placeholder(self, turns: tuple[Turn, ...], images: int) -> tuple[Turn, ...]:
        if self.missing_placeholder == "error" or images != 1 or placeholder_fault(turns, 0) is not None:
            return turns
        first = next((number for number, turn in enumerate(turns) if turn.role == "user"), None)
        if first is None:
            return turns
        asked = Turn("user", f"{IMAGE_PLACEHOLDER}\n{turns[first].text}")
        return (*turns[:first], asked, *turns[first + 1 :])


def read_turns(row: Row) -> tuple[Turn, ...]:
    """The turns of a row. InputError: none, or one of an unknown speaker or without text."""
    name = next((name for name in LISTS if name in row.values), "conversations")
    entries = row.require(name, list)
    if not entries:
        raise row.fail(f"{name!r} is empty")
    return tuple(_turn(row, entry, *LISTS[name]) for entry in entries)


def _turn(row: Row, entry: Any, who: str, what: str) -> Turn:
    if not isinstance(entry, dict) or not isinstance(entry.get(what), str) or not isinstance(entry.get(who), str):
        raise row.fail(f"turn {entry!r:.60} has no text {what!r} or no {who!r}")
    if entry[who] not in SPEAKERS:
        raise row.fail(f"unknown speaker {entry[who]!r}.{suggestion(entry[who], SPEAKERS)}")
    return Turn(SPEAKERS[entry[who]], entry[what])

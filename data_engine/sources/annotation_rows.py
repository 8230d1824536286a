"""Annotation files row by row, each row with its place: JSON lines, or one JSON list, which is read piece by piece.

The list is not loaded whole: files of several gigabytes are usual, and the parsed objects take five times as much.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from mmzoo.errors import InputError, suggestion

PIECE = 2**18  # characters read at once


@dataclass(frozen=True, slots=True)
class Row:
    """One object of an annotation file. `place`: file and line, for messages; `number`: from 1."""

    place: str
    number: int
    values: Mapping[str, Any]

    def fail(self, what: str) -> InputError:
        """The error of this row."""
        return InputError(f"{self.place}: {what}")

    def require(self, name: str, kind: type | tuple[type, ...] = str) -> Any:
        """A value that must be there, of a type. InputError otherwise, with the nearest name that is there."""
        if name not in self.values:
            raise self.fail(f"no {name!r}.{suggestion(name, self.values)}")
        value = self.values[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            names = kind.__name__ if isinstance(kind, type) else " or ".join(each.__name__ for each in kind)
            raise self.fail(f"{name!r} is {_shown(value)}, {names} is due")
        return value

    def numbers(self, name: str, count: int) -> list[float]:
        """A value that must be a list of `count` numbers."""
        return self.as_numbers(self.require(name, list), name, count)

    def as_numbers(self, value: Any, name: str, count: int) -> list[float]:
        """The value as a list of `count` finite numbers. InputError otherwise."""
        if not isinstance(value, list) or len(value) != count or not all(map(_is_number, value)):
            raise self.fail(f"{name!r} is {_shown(value)}, {count} numbers are due")
        return value

    def size(self, width: str, height: str) -> tuple[int, int] | None:
        """(width, height) of an image, px, where the row has both under these names. InputError: no whole numbers."""
        if self.values.get(width) is None or self.values.get(height) is None:
            return None
        return self.require(width, int), self.require(height, int)

    def optional_text(self, name: str) -> str | None:
        """A text that may be absent or null. InputError: another type."""
        return None if self.values.get(name) is None else self.require(name)

    def rest(self, *used: str) -> dict[str, Any]:
        """The values under other names than these."""
        return {name: value for name, value in self.values.items() if name not in used}

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turns the ValueErrors of the typed fields into the error of this row."""
        try:
            yield
        except InputError:
            raise
        except ValueError as fault:
            raise self.fail(str(fault)) from None


def _is_number(value: Any) -> bool:
    """Whether it is a finite number that a float can hold: JSON's whole numbers may be longer."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def annotation_rows(file: Path) -> Iterator[Row]:
    """The rows of JSON lines, or of a file that holds one list. InputError, with file and line, otherwise."""
    try:
        with file.open(encoding="utf-8-sig") as stream:
            start = stream.read(PIECE)
            is_list = start.lstrip()[:1] == "["
            stream.seek(0)
            rows = _list_rows(file, stream) if is_list else _line_rows(file, stream)
            yield from rows
    except OSError as fault:
        raise InputError(f"cannot read {file}: {fault.strerror}. Name the annotation file") from None
    except UnicodeDecodeError as fault:
        raise InputError(f"{file} is not UTF-8 ({fault.reason} near byte {fault.start}). Convert it first") from None


def _line_rows(file: Path, stream: TextIO) -> Iterator[Row]:
    number = 0
    for line, text in enumerate(stream, 1):
        if not text.strip():
            continue
        number += 1
        place = f"{file}:{line}"
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as fault:
            hint = "" if number > 1 else ". One object a line, or one list of objects, is due"
            raise InputError(f"{place}: not JSON ({_json_fault(fault)}){hint}") from None
        yield _row(place, number, value)


def _list_rows(file: Path, stream: TextIO) -> Iterator[Row]:
    text = _Pieces(file, stream)
    text.take("[")
    if text.peek() == "]":
        text.take("]")
    else:
        number = 0
        while True:
            number += 1
            text.peek()
            place = f"{file}:{text.line}, row {number}"  # a list is often one line
            yield _row(place, number, text.value())
            if text.peek() == "]":
                text.take("]")
                break
            text.take(",")
    if text.peek():
        raise InputError(f"{file}:{text.line}: text behind the end of the list. Is it two files in one?")


class _Pieces:
    """A text that is read as it is needed; what was taken is forgotten."""

    def __init__(self, file: Path, stream: TextIO) -> None:
        self.file, self.stream = file, stream
        self.line = 1
        self._text, self._at = "", 0
        self._decoder = json.JSONDecoder()

    def _more(self, count: int) -> bool:
        piece = self.stream.read(count)
        self._text, self._at = self._text[self._at :] + piece, 0
        return bool(piece)

    def _skip(self, count: int) -> None:
        self.line += self._text.count("\n", self._at, self._at + count)
        self._at += count

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            rest = len(self._text)
            while self._at < rest and self._text[self._at] in " \t\r\n":
                self._skip(1)
            if self._at < rest:
                return self._text[self._at]
            if not self._more(PIECE):
                return ""

    def take(self, character: str) -> None:
        """Takes this character."""
        found = self.peek()
        if found != character:
            shown = repr(found) if found else "the end of the file"
            raise InputError(f"{self.file}:{self.line}: {shown} where {character!r} is due. Is the file cut?")
        self._skip(1)

    def value(self) -> Any:
        """Takes one JSON value, reading twice as much each time it turns out to be longer.

        A bare number may be taken in half where a piece ends; rows are objects, so it is refused in any case.
        """
        want = PIECE
        while True:
            try:
                value, stop = self._decoder.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as fault:
                if isinstance(fault, RecursionError) or not self._more(want):
                    raise InputError(f"{self.file}:{self.line}: not JSON ({_json_fault(fault)})") from None
                want *= 2
                continue
            self._skip(stop - self._at)
            return value


def _json_fault(fault: Exception) -> str:
    return fault.msg if isinstance(fault, json.JSONDecodeError) else str(fault)


def _row(place: str, number: int, value: Any) -> Row:
    if not isinstance(value, dict):
        raise InputError(f"{place}: {_shown(value)} where an object is due")
    return Row(place, number, value)


def read_json(file: Path) -> Any:
    """A whole JSON file. InputError: unreadable."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as fault:
        raise InputError(f"cannot read {file}: {fault.strerror}. Name the annotation file") from None
    except (ValueError, RecursionError) as fault:
        line = f":{fault.lineno}" if isinstance(fault, json.JSONDecodeError) else ""
        raise InputError(f"{file}{line}: not JSON ({fault})") from None


def inside(folder: Path, name: str, place: str) -> Path:
    """The path of a file that an annotation names. InputError: it would lie outside of its folder."""
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise InputError(f"{place}: file name {name!r} leaves {folder}. Name files relative to that folder")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise InputError(f"{place}: {name!r} cannot be the name of a file. Mend the row") from None
    return folder / path

"""What every source is: a frozen record of options, with an iterator of samples in an order that files alone decide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_engine.sources.annotation_rows import Row, inside
from data_engine.stored_sample import StoredFile, StoredSample, placeholder_fault
from mmzoo.errors import InputError

KEY_DIGITS = 9  # rows of one source: below a billion
NAME_LENGTH = 64


def key_stem(name: str) -> str:
    """The start of a source's keys: its name in a-z, 0-9 and _. No -, so that sources sort like their keys."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:NAME_LENGTH]


@dataclass(frozen=True, kw_only=True)
class Source:
    """`name`: of the data set, in each sample and in front of each key. `license`: as its owner words it.

    `samples` gives files by path, unread; keys are the name and a number that follows the order of the files' rows.
    InputError, with file and line: an annotation that is damaged or does not fit its kind.
    """

    name: str
    license: str | None = None

    def __post_init__(self) -> None:
        if not key_stem(self.name):
            raise InputError(f"source name {self.name!r} has no letter or digit of a-z, 0-9. Choose another")

    def samples(self) -> Iterator[StoredSample]:
        """The samples, in order."""
        raise NotImplementedError

    def sample(self, number: int, origin: str, /, **fields: Any) -> StoredSample:
        """A sample of this source, the `number`-th, from 1. InputError: a conversation with other placeholders than
        images.
        """
        if number >= 10**KEY_DIGITS:
            raise InputError(f"source {self.name} has 10**{KEY_DIGITS} rows or more. Divide it into several sources")
        key = f"{key_stem(self.name)}-{number:0{KEY_DIGITS}d}"
        made = StoredSample(key=key, source=self.name, origin=origin, **{"license": self.license, **fields})
        fault = placeholder_fault(made.conversation, len(made.images)) if made.conversation else None
        if fault:
            raise InputError(f"{self.name}, {origin}: {fault}. Mend the row")
        return made

    def origin(self, row: Row, file: Path) -> str:
        """File name and line of a row, without the folders that are of this machine only."""
        return file.name + row.place.removeprefix(str(file))


def file_in(folder: Path, name: str, place: str) -> StoredFile:
    """The file that an annotation at `place` names, relative to a folder."""
    return StoredFile(name, inside(folder, name, place))


def require_folder(folder: Path, what: str) -> None:
    """InputError: not a folder."""
    if not folder.is_dir():
        raise InputError(f"no folder of {what} at {folder}. Name the folder that holds them")


def files_by_stem(folder: Path, what: str, suffixes: set[str]) -> dict[str, str]:
    """{relative path without suffix: relative path} of the files with these suffixes, in order.

    InputError: no such folder or files; two with one stem.
    """
    require_folder(folder, what)
    found: dict[str, str] = {}
    for path in sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()):
        if Path(path).suffix.lower() not in suffixes:
            continue
        stem = path.rpartition(".")[0]
        if stem in found:
            raise InputError(f"{folder}: {found[stem]} and {path} have one stem. Rename one")
        found[stem] = path
    if not found:
        raise InputError(f"{folder} holds no {what} ({', '.join(sorted(suffixes))}). Name the folder that holds them")
    return found


def paired(stems: dict[str, str], others: dict[str, str], what: str, folder: Path) -> None:
    """InputError: a stem on one side only. `what`, `folder`: of the others."""
    lone = sorted(set(stems).symmetric_difference(others))
    if lone:
        present = stems.get(lone[0]) or others[lone[0]]
        raise InputError(
            f"{len(lone)} files have no partner, the first is {present!r}: images and {what} ({folder}) are paired by "
            f"their names without suffix. Add or remove files until each has one"
        )

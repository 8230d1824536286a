"""Lists of samples to leave out: JSON lines with a key, as `mmzoo data clean` and `mmzoo data repair` write them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmzoo.errors import InputError

LEFT_OUT = "left out"  # the `action`, in a repairs.jsonl, of a sample that is gone; a list without actions removes all
NOT_NAMED = "no check named"


@dataclass(frozen=True, slots=True)
class ListedRemoval:
    """Why a sample is on a list, and where it came from: its file, or file and line; None where the list is silent."""

    check: str
    path: str | None = None


def read_removals(file: Path) -> dict[str, ListedRemoval]:
    """The keys of a removed.jsonl or repairs.jsonl, and why. InputError, with file and line."""
    found: dict[str, ListedRemoval] = {}
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            row = _row(line, f"{file}, line {number}")
            if row.get("action", LEFT_OUT) == LEFT_OUT:
                path = row.get("path")
                removal = ListedRemoval(str(row.get("check", NOT_NAMED)), path if isinstance(path, str) else None)
                found.setdefault(row["key"], removal)
    except OSError as fault:
        raise InputError(f"cannot read {file}: {fault.strerror}. Take the removed.jsonl of mmzoo data clean") from None
    except UnicodeDecodeError as fault:
        raise InputError(f"{file} is not UTF-8 ({fault.reason}). Take the removed.jsonl of mmzoo data clean") from None
    return found


def _row(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if not isinstance(row["key"], str) and row.get("action", LEFT_OUT) == LEFT_OUT:
            raise TypeError(f"key is {row['key']!r}")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as fault:
        raise InputError(f'{place} is not {{"key": ...}} ({fault}). Take removed.jsonl') from None
    return row

"""The one error that means "the user's input is wrong", and the nearest-name suggestion that ends its message.

Anything else that is raised is a fault of ours and keeps its stack trace.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable
from typing import NoReturn

NAMES_SHOWN = 20  # a network has hundreds of layers, and a terminal one screen
EXIT_OK, EXIT_FAULT, EXIT_USER_INPUT = 0, 1, 2


class InputError(ValueError):
    """The user's input is wrong. The message says what, where, and what to do next, on one line; the exit code is 2."""


class CommandParser(argparse.ArgumentParser):
    """argparse whose refusals are InputErrors: one line, instead of the usage and a line below it."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}. See: {self.prog} --help")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name closest to `word`, or None when nothing is close."""
    names = {name.lower(): name for name in known}
    match = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.5)
    return names[match[0]] if match else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """Text to append to an error: " Did you mean 'evotok'?", or the first known names when nothing is close."""
    known = list(known)
    match = nearest(word, known)
    if match is not None:
        return f" Did you mean {match!r}?"
    more = f" and {len(known) - NAMES_SHOWN} more" if len(known) > NAMES_SHOWN else ""
    return f" Known: {', '.join(known[:NAMES_SHOWN])}{more}." if known else ""

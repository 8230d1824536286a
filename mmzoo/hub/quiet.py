"""Keeps transformers' own messages off stderr while a folder is read or written: what is said there is ours."""

from __future__ import annotations

import logging as levels
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Switches the bars off and back to what they were."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def no_warnings() -> Iterator[None]:
    """Hides transformers' warnings: its loading report says again what the receipt or the refusal says in one line.

    A user who asked transformers for more (info, debug) still gets it.
    """
    level = logging.get_verbosity()
    if level == levels.WARNING:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)

"""Finds the weights of networks that a metric needs and no package brings along."""

from __future__ import annotations

from pathlib import Path

from mmzoo.errors import InputError
from mmzoo.hub.torch_weights import cached_weights


class NotMeasuredError(Exception):
    """A metric cannot be had here; the message says why in a few words, for the place where its number would be."""


def find_weights(given: Path | None, file_name: str, url: str) -> Path:
    """The file that the user gave, else `file_name` in torch's cache.

    InputError: the given one is not there. NotMeasuredError: none was given and none is cached.
    """
    if given is not None:
        file = given.expanduser()
        if not file.is_file():
            raise InputError(f"there are no weights at {file}. Give the file that was fetched from {url}")
        return file
    cached = cached_weights(file_name)
    if not cached.is_file():
        raise NotMeasuredError(f"weights absent: fetch {url} and give its path")
    return cached

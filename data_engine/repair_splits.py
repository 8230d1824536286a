"""The splits of repaired shards: as the index has them; what it does not know is decided as a build decides it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.index import INDEX_FOLDER, file_sha256, key_hash
from data_engine.splits import SPLITS, split_by_hash
from mmzoo.errors import InputError


def sound_column(folder: Path, content: Mapping[str, Any] | None, name: str) -> np.ndarray | None:
    """A column of an index that may be damaged; None where it is, or is absent."""
    path = folder / INDEX_FOLDER / f"{name}.npy"
    try:
        if content is None or file_sha256(path) != content["columns"][name]["sha256"]:
            return None
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def indexed_splits(folder: Path, content: Mapping[str, Any] | None) -> dict[int, str]:
    """{hash of a key: its split} as far as the index can be believed."""
    hashes, numbers = (sound_column(folder, content, name) for name in ("key_hash", "split"))
    try:
        names = (content or {})["splits"]["names"]
    except (LookupError, TypeError):
        return {}
    if hashes is None or numbers is None or len(hashes) != len(numbers) or not (numbers < len(names)).all():
        return {}
    return {each: names[number] for each, number in zip(hashes.tolist(), numbers.tolist(), strict=True)}


def lost_splits(which: str) -> InputError:
    """The error of samples whose split nothing tells."""
    return InputError(
        f"the index no longer says which split {which} samples belong to. Give --val-fraction, and --group, as the "
        f"build had them ({SPLITS[1]} is drawn by hash, so equal values draw it again)"
    )


def lost_samples(folder: Path, content: Mapping[str, Any] | None, found: set[str]) -> dict[str, int]:
    """{shard: samples that the index lists in it and no tar holds}, where the index can be believed."""
    hashes, numbers = (sound_column(folder, content, name) for name in ("key_hash", "shard"))
    if content is None or hashes is None or numbers is None or len(hashes) != len(numbers):
        return {}
    if not ((numbers >= 0) & (numbers < len(content["shards"]))).all():
        return {}
    here = np.array([key_hash(key) for key in found if key.isascii()], np.uint64)
    counts = np.bincount(numbers[~np.isin(hashes, here)], minlength=len(content["shards"]))
    return {shard["name"]: int(count) for shard, count in zip(content["shards"], counts, strict=True) if count}


def complete_splits(
    keys: Sequence[str], known: Mapping[int, str], groups: Callable[[], Sequence[str]], val_fraction: float | None
) -> tuple[list[str], int]:
    """The split of each key, and how many of them the index did not know.

    `groups()`: the name of what each key must stay together with; a group goes where a known member of it is, or else
    where its hash puts it. InputError: such a one and no `val_fraction`.
    """
    splits = [known.get(key_hash(key)) for key in keys]
    unknown = sum(split is None for split in splits)
    if not unknown:
        return [split for split in splits if split is not None], 0
    if val_fraction is None:
        raise lost_splits(f"{unknown} of {len(keys)}")
    names = groups()
    placed = {name: split for name, split in zip(names, splits, strict=True) if split is not None}
    drawn = dict(zip(names, split_by_hash(names, val_fraction if len(set(names)) > 1 else 0), strict=True))
    return [split or placed.get(name) or drawn[name] for name, split in zip(names, splits, strict=True)], unknown

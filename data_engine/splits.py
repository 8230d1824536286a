"""Which samples are for training and which for validation, decided by group and checked for leaks.

A group is what must not be torn apart: all pictures of one scene, both halves of a stereo pair. Its hash decides, so
that adding files later moves no file from one split to the other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmzoo.errors import InputError, suggestion

SPLITS = ("train", "val")


def group_of(path: str, pattern: re.Pattern[str] | None, has_suffix: bool = True) -> str:
    """The first capture group of the pattern in a relative path; without a match, the path without its suffix."""
    match = pattern.search(path) if pattern else None
    if match and match.group(1) is not None:
        return match.group(1)
    return (path.rpartition(".")[0] or path) if has_suffix else path


def group_pattern(text: str | None) -> re.Pattern[str] | None:
    """The user's regex, compiled. InputError: not a regex, or one without a capture group."""
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as fault:
        raise InputError(f"--group {text!r} is not a regular expression: {fault}") from None
    if pattern.groups < 1:
        raise InputError(f"--group {text!r} has no capture group. Put brackets around what names the group: '(...)'")
    return pattern


def groups_of(paths: Sequence[str], pattern: re.Pattern[str] | None, has_suffix: bool = True) -> list[str]:
    """`group_of` of each. InputError: a pattern that matches none of them, so that nothing would be kept together."""
    if pattern and paths and not any(pattern.search(path) for path in paths):
        examples = " and ".join(map(repr, paths[:2]))
        raise InputError(
            f"the group pattern {pattern.pattern!r} matches none of {len(paths)} names, for example not {examples}"
        )
    return [group_of(path, pattern, has_suffix) for path in paths]


def split_by_hash(groups: Sequence[str], val_fraction: float) -> list[str]:
    """Split of each sample, from the hash of its group; `val_fraction` in [0, 1] is the share of groups in "val".

    When a wanted split would be empty, the group nearest to the border (the lowest hash for "val", the highest for
    "train") is put there. InputError: two splits are wanted and there is one group.
    """
    ranks = {group: int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64 for group in groups}
    chosen = {group for group, rank in ranks.items() if rank < val_fraction}
    if 0 < val_fraction < 1:
        if len(ranks) < 2:
            raise InputError(
                f"all images are copies or of one group ({groups[0]!r}), so they cannot be split into train and val. "
                f"Add other images, or give --val-fraction 0"
            )
        by_rank = sorted(ranks, key=lambda group: (ranks[group], group))
        chosen = (chosen or {by_rank[0]}) if len(chosen) < len(ranks) else chosen - {by_rank[-1]}
    return ["val" if group in chosen else "train" for group in groups]


def read_split_file(file: Path) -> dict[str, str]:
    """{relative path: "train" | "val"} from a JSON file. InputError: unreadable, or another shape."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        raise InputError(f"cannot read the split file {file}: {fault}") from None
    if not isinstance(content, dict):
        raise InputError(f'{file} must hold {{"relative path": "train" or "val"}}, not a {type(content).__name__}')
    for path, split in content.items():
        if split not in SPLITS:
            raise InputError(f"{file}: split {split!r} of {path!r} is not one of: {', '.join(SPLITS)}")
    return content


def split_by_file(paths: Sequence[str], listed: Mapping[str, str], known: Sequence[str]) -> list[str]:
    """Split of each path as listed. `known`: all files of the folder.

    InputError: an image that is not listed, a listed file that does not exist, a named split that stays empty.
    """
    absent = set(listed).difference(known)
    if absent:
        path = min(absent)
        raise InputError(f"the split file lists {path!r}, which is not in the folder.{suggestion(path, known[:5000])}")
    missing = [path for path in paths if path not in listed]
    if missing:
        raise InputError(f"the split file leaves out {len(missing)} images, the first is {missing[0]!r}. Add them")
    splits = [listed[path] for path in paths]
    for split in sorted(set(listed.values())):
        if split not in splits:
            raise InputError(f"no sound image is left in split {split!r} of the split file. See the rejected files")
    return splits


def join_copies(groups: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """The groups, where copies of a picture (equal content hash) go where the first one goes; else they would leak."""
    first: dict[str, str] = {}
    return [first.setdefault(content, group) for content, group in zip(hashes, groups, strict=True)]


def check_leaks(
    paths: Sequence[str], groups: Sequence[str], hashes: Sequence[str], splits: Sequence[str]
) -> list[tuple[str, str]]:
    """Pairs of files with identical content (first one, later one), all of them inside one split.

    InputError, naming both files: the same group, or the same content, in two splits.
    """
    duplicates = []
    for kind, names in (("group", groups), ("content", hashes)):
        first: dict[str, int] = {}
        for row, name in enumerate(names):
            other = first.setdefault(name, row)
            if splits[other] != splits[row]:
                raise InputError(
                    f"leak: {paths[other]!r} ({splits[other]}) and {paths[row]!r} ({splits[row]}) have the same "
                    f"{kind}. Remove one, or put both into one group with --group, or one split with --split-file"
                )
            if kind == "content" and other != row:
                duplicates.append((paths[other], paths[row]))
    return duplicates

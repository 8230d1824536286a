"""Proves that every sample of a shard folder is sound, or names each fault: shard, key, byte offset, what.

Reads everything: every tar header, every member, every image is decoded. Knows nothing of torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.code_fields import CODES, CodesField
from data_engine.index import INDEX_FILE, INDEX_FOLDER, UNREADABLE, file_sha256, read_description
from data_engine.lint_content import content_faults, kind_of
from data_engine.progress import tracked
from data_engine.tar_groups import Finding, Group, key_faults, read_groups
from mmzoo.errors import InputError

Visit = Callable[[Path, Group, list[Finding]], None]


def lint_folder(folder: Path, visit: Visit | None = None, resync: bool = False) -> list[Finding]:
    """All faults of a shard folder, in the order of the shards. InputError: not a folder, or nothing to look at.

    `visit(tar, group, faults)` is called with each sample and what is wrong with its members. `resync`: read on behind
    a damage in a tar, where a header can be recognised.
    """
    if not folder.is_dir():
        raise InputError(f"no shard folder at {folder}. Give the folder that `mmzoo data build` wrote")
    tars = sorted(folder.glob("*.tar"))
    if not tars and not (folder / INDEX_FOLDER).exists():
        raise InputError(f"{folder} holds no shards (*.tar). Give the folder that `mmzoo data build` wrote")
    findings: list[Finding] = []
    content = lint_index(folder, [tar.name for tar in tars], findings)
    keys: dict[bytes, str] = {}
    for tar in tracked(tars, "checking shards", len(tars)):
        findings += _lint_shard(tar, content, keys, visit, resync)
    return findings


def lint_index(folder: Path, tars: list[str], findings: list[Finding]) -> dict[str, Any] | None:
    """The index's content where it can be believed; what is wrong with it goes to `findings`."""
    name = f"{INDEX_FOLDER}/{INDEX_FILE}"
    try:
        content, _ = read_description(folder)
        listed = [shard["name"] for shard in content["shards"]]
        columns = content["columns"].items()
    except InputError as mistake:
        findings.append(Finding(name, None, None, str(mistake)))
        return None
    except (LookupError, TypeError, AttributeError) as fault:
        findings.append(Finding(name, None, None, f"incomplete: {fault}"))
        return None
    for shard in sorted(set(listed).symmetric_difference(tars)):
        what = "the index lists it, but it is missing" if shard in listed else "the index does not list this shard"
        findings.append(Finding(shard, None, None, what))
    for column, entry in columns:
        path = folder / INDEX_FOLDER / f"{column}.npy"
        if not path.is_file():
            findings.append(Finding(f"{INDEX_FOLDER}/{path.name}", None, None, "missing"))
        elif file_sha256(path) != entry["sha256"]:
            findings.append(Finding(f"{INDEX_FOLDER}/{path.name}", None, None, "sha256 differs from the index"))
    return content


def _lint_shard(
    tar: Path, content: dict[str, Any] | None, keys: dict[bytes, str], visit: Visit | None, resync: bool
) -> Iterator[Finding]:
    as_indexed = yield from _lint_identity(tar, content)
    found: list[Finding] = []
    codes = codes_field(content, found)
    starts: list[int] = []
    last = ""
    listed = max(_indexed_starts(tar, content), default=0) if resync and content else 0
    for group in read_groups(tar, found, resync, listed):
        starts.append(group.offset)
        faults = list(_name_faults(tar.name, group))
        digest = hashlib.sha256(group.key.encode("utf-8", "surrogateescape")).digest()[:8]
        if digest in keys:
            faults.append(Finding(tar.name, group.key, group.offset, f"duplicate key, first seen in {keys[digest]}"))
        elif group.key < last:
            faults.append(Finding(tar.name, group.key, group.offset, f"key out of order, after {last}"))
        keys.setdefault(digest, tar.name)
        last = group.key
        inside = list(content_faults(tar.name, group, codes))
        kind = kind_of(group, codes)
        if not inside and content is not None and kind != content.get("kind", kind):
            inside = [Finding(tar.name, group.key, group.offset, f"a sample of {kind} among {content['kind']}")]
        found += [*faults, *inside]
        if visit is not None:
            visit(tar, group, [*faults, *inside])
    yield from found
    if content is not None and as_indexed and starts != _indexed_starts(tar, content):
        yield Finding(tar.name, None, None, "the offsets in the index are not those of the members")


def _name_faults(shard: str, group: Group) -> Iterator[Finding]:
    for member in group.members:
        for what in (*key_faults(member.name, group.key), *member.faults):
            yield Finding(shard, group.key, member.offset, what)


def _lint_identity(tar: Path, content: dict[str, Any] | None) -> Generator[Finding, None, bool]:
    """Whether the tar is the one that was indexed; the finding when the index lists it with another sha256."""
    entry = next((shard for shard in (content or {}).get("shards", []) if shard["name"] == tar.name), None)
    if entry is None:
        return False
    try:
        if file_sha256(tar) == entry["sha256"]:
            return True
    except OSError as fault:
        yield Finding(tar.name, None, None, f"cannot be read: {fault.strerror}")
        return False
    newer = tar.stat().st_mtime_ns > (tar.parent / INDEX_FOLDER / INDEX_FILE).stat().st_mtime_ns
    why = ": the index is older than the tar" if newer else ""
    yield Finding(tar.name, None, None, f"sha256 of the tar differs from the index{why}")
    return False


def _indexed_starts(tar: Path, content: dict[str, Any]) -> list[int]:
    """Byte offset of the first member of each sample of a shard, as the index has it."""
    try:
        number = [shard["name"] for shard in content["shards"]].index(tar.name)
        columns = [
            np.load(tar.parent / INDEX_FOLDER / f"{name}.npy", allow_pickle=False) for name in ("shard", "offset")
        ]
        return columns[1][columns[0] == number, 0].tolist()
    except (*UNREADABLE, LookupError):
        return []


def codes_field(content: dict[str, Any] | None, found: list[Finding]) -> CodesField | None:
    """What the codes must be, where the index lists codes."""
    try:
        return CodesField.in_index(content) if content and CODES in content.get("fields", ()) else None
    except InputError as mistake:
        found.append(Finding(f"{INDEX_FOLDER}/{INDEX_FILE}", None, None, str(mistake)))
        return None

"""Proves that every sample of a shard folder is sound, or names each fault: shard, key, byte offset, what.

Reads everything: every tar header, every member, every image is decoded. Knows nothing of torch.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data_engine.code_fields import CODES, CODES_EXTENSION, CodesField
from data_engine.decode import EXTENSIONS, decode_image, read_header
from data_engine.index import INDEX_FILE, INDEX_FOLDER, file_sha256, read_description
from data_engine.lint_records import RECORD_EXTENSION, is_record, record_faults
from data_engine.progress import tracked
from data_engine.records import SAMPLE_KEYS, SAMPLE_SCHEMA
from data_engine.shards import BLOCK, KEY_PATTERN
from mmzoo.errors import InputError

IMAGE_EXTENSIONS = {*EXTENSIONS.values(), "jpeg", "tiff"}
PICKLE_EXTENSIONS = {"pkl", "pickle", "pyd", "pth", "pt", "ckpt", "bin", "npy", "npz", "joblib", "dill"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault. `key` and `offset` (bytes into the shard) are None where the fault is not in a member."""

    shard: str
    key: str | None
    offset: int | None
    what: str

    def line(self) -> str:
        """The finding on one line: shard, key, offset, what."""
        where = "-" if self.offset is None else str(self.offset)
        return f"{self.shard}: key {self.key or '-'}, offset {where}: {self.what}"


@dataclass(slots=True)
class _Member:
    extension: str
    offset: int
    data: bytes


@dataclass(slots=True)
class _Group:
    """Members that lie together under one key."""

    key: str
    offset: int
    members: list[_Member] = field(default_factory=list)


def lint_folder(folder: Path) -> list[Finding]:
    """All faults of a shard folder, in the order of the shards. InputError: not a folder, or nothing to look at."""
    if not folder.is_dir():
        raise InputError(f"no shard folder at {folder}. Give the folder that `mmzoo data build` wrote")
    tars = sorted(folder.glob("*.tar"))
    if not tars and not (folder / INDEX_FOLDER).exists():
        raise InputError(f"{folder} holds no shards (*.tar). Give the folder that `mmzoo data build` wrote")
    findings: list[Finding] = []
    content = _lint_index(folder, [tar.name for tar in tars], findings)
    keys: dict[bytes, str] = {}
    for tar in tracked(tars, "checking shards", len(tars)):
        findings += _lint_shard(tar, content, keys)
    return findings


def _lint_index(folder: Path, tars: list[str], findings: list[Finding]) -> dict[str, Any] | None:
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


def _lint_shard(tar: Path, content: dict[str, Any] | None, keys: dict[bytes, str]) -> Iterator[Finding]:
    as_indexed = yield from _lint_identity(tar, content)
    found: list[Finding] = []
    codes = _codes_field(content, found)
    starts: list[int] = []
    last = ""
    for group in _groups(tar, found):
        starts.append(group.offset)
        digest = hashlib.sha256(group.key.encode("utf-8", "surrogateescape")).digest()[:8]
        if digest in keys:
            found.append(Finding(tar.name, group.key, group.offset, f"duplicate key, first seen in {keys[digest]}"))
        elif group.key < last:
            found.append(Finding(tar.name, group.key, group.offset, f"key out of order, after {last}"))
        keys.setdefault(digest, tar.name)
        last = group.key
        found += _lint_content(tar.name, group, codes)
    yield from found
    if content is not None and as_indexed and starts != _indexed_starts(tar, content):
        yield Finding(tar.name, None, None, "the offsets in the index are not those of the members")


def _lint_identity(tar: Path, content: dict[str, Any] | None) -> Generator[Finding, None, bool]:
    """Whether the tar is the one that was indexed; the finding when the index lists it with another sha256."""
    entry = next((shard for shard in (content or {}).get("shards", []) if shard["name"] == tar.name), None)
    if entry is None:
        return False
    if file_sha256(tar) == entry["sha256"]:
        return True
    newer = tar.stat().st_mtime_ns > (tar.parent / INDEX_FOLDER / INDEX_FILE).stat().st_mtime_ns
    why = ": the index is older than the tar" if newer else ""
    yield Finding(tar.name, None, None, f"sha256 of the tar differs from the index{why}")
    return False


def _indexed_starts(tar: Path, content: dict[str, Any]) -> list[int]:
    """Byte offset of the first member of each sample of a shard, as the index has it."""
    number = [shard["name"] for shard in content["shards"]].index(tar.name)
    try:
        columns = [
            np.load(tar.parent / INDEX_FOLDER / f"{name}.npy", allow_pickle=False) for name in ("shard", "offset")
        ]
        return columns[1][columns[0] == number, 0].tolist()
    except (OSError, ValueError, LookupError):
        return []


def _groups(tar: Path, found: list[Finding]) -> Iterator[_Group]:
    """The samples of a tar as webdataset sees them: neighbours with one key."""
    group: _Group | None = None
    for info, data in _members(tar, found):
        folder, _, base = info.name.rpartition("/")
        stem, _, extension = base.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        found += [Finding(tar.name, key, info.offset_data, what) for what in _name_faults(info, key, extension)]
        if not info.isreg():
            continue
        if group is None or group.key != key:
            if group is not None:
                yield group
            group = _Group(key, info.offset_data)
        group.members.append(_Member(extension.lower(), info.offset_data, data))
    if group is not None:
        yield group


def _members(tar: Path, found: list[Finding]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Every member with its bytes; a tar that is cut or has a broken header is named where reading stops."""
    end = 0
    try:
        with tarfile.open(tar, "r:") as archive:
            while (info := archive.next()) is not None:
                end = info.offset
                stream = archive.extractfile(info) if info.isreg() else None
                yield info, stream.read() if stream else b""
                end = info.offset_data + -(-info.size // BLOCK) * BLOCK * info.isreg()
    except (tarfile.TarError, OSError, EOFError, ValueError) as fault:
        found.append(Finding(tar.name, None, end, f"truncated or damaged tar: {fault}"))
        return
    with tar.open("rb") as file:
        file.seek(end)
        tail = file.read(2 * BLOCK)
    if len(tail) < 2 * BLOCK:
        found.append(Finding(tar.name, None, end, "truncated tar: the end marker is missing"))
    elif any(tail):
        found.append(Finding(tar.name, None, end, "damaged tar: no member header here, what follows is lost"))


def _name_faults(info: tarfile.TarInfo, key: str, extension: str) -> Iterator[str]:
    if ".." in PurePosixPath(info.name).parts or info.name.startswith("/"):
        yield f"path leaves the folder: {info.name!r}"
    elif not KEY_PATTERN.fullmatch(key):
        yield f"key of {info.name!r} has other characters than a-z 0-9 _ -"
    if not info.isreg():
        kind = "a symlink" if info.issym() else "a hard link" if info.islnk() else "no regular file"
        yield f"member {info.name!r} is {kind}"
    if "." in extension and extension != CODES_EXTENSION and not RECORD_EXTENSION.fullmatch(extension):
        yield f"dotted stem in {info.name!r}: readers cut the key at the first dot"
    last = extension.rpartition(".")[2].lower()
    if extension == CODES_EXTENSION:
        return
    if last in PICKLE_EXTENSIONS:
        yield f"pickle member {info.name!r}: readers may execute it"
    elif last not in IMAGE_EXTENSIONS and last != "json" and info.isreg():
        yield f"member {info.name!r} is of no known type"


def _codes_field(content: dict[str, Any] | None, found: list[Finding]) -> CodesField | None:
    """What the codes must be, where the index lists codes."""
    try:
        return CodesField.in_index(content) if content and CODES in content.get("fields", ()) else None
    except InputError as mistake:
        found.append(Finding(f"{INDEX_FOLDER}/{INDEX_FILE}", None, None, str(mistake)))
        return None


def _lint_codes(shard: str, group: _Group, field: CodesField) -> Iterator[Finding]:
    """The faults of a sample of codes: one member of codes as the index describes them, and one json."""
    for name, extension in ((CODES, CODES_EXTENSION), ("json", "json")):
        members = [member for member in group.members if member.extension == extension]
        if len(members) != 1:
            what = f"missing pair member: no {name}" if not members else f"{len(members)} {name} members under one key"
            yield Finding(shard, group.key, group.offset, what)
        for member in members[:1]:
            what = _codes_fault(member.data, field) if name == CODES else _read_json(member.data)
            if isinstance(what, str):
                yield Finding(shard, group.key, member.offset, what)


def _codes_fault(data: bytes, field: CodesField) -> str | None:
    try:
        field.unpack(data)
    except InputError as mistake:
        return str(mistake)
    return None


def _lint_content(shard: str, group: _Group, codes: CodesField | None) -> Iterator[Finding]:
    if codes:
        yield from _lint_codes(shard, group, codes)
        return
    members = {member.extension: member for member in group.members}
    if "json" not in members or not is_record(members["json"].data):
        yield from _lint_group(shard, group)
        return
    data = {extension: member.data for extension, member in members.items()}
    if len(members) < len(group.members):
        yield Finding(shard, group.key, group.offset, "two members under one extension")
    for extension, what in record_faults(group.key, data):
        yield Finding(shard, group.key, members[extension].offset if extension in members else group.offset, what)


def _lint_group(shard: str, group: _Group) -> Iterator[Finding]:
    images = [member for member in group.members if member.extension.rpartition(".")[2] in IMAGE_EXTENSIONS]
    records = [member for member in group.members if member.extension.rpartition(".")[2] == "json"]
    for name, members in (("image", images), ("json", records)):
        if len(members) != 1:
            what = f"missing pair member: no {name}" if not members else f"{len(members)} {name} members under one key"
            yield Finding(shard, group.key, group.offset, what)
    for member in group.members:
        if not member.data:
            yield Finding(shard, group.key, member.offset, f"zero-length member .{member.extension}")
    meta = None
    if records and records[0].data:
        meta = _read_json(records[0].data)
        if isinstance(meta, str):
            yield Finding(shard, group.key, records[0].offset, meta)
    if images and images[0].data:
        for what in _image_faults(images[0].data, meta if isinstance(meta, dict) else None):
            yield Finding(shard, group.key, images[0].offset, what)


def _read_json(data: bytes) -> dict[str, Any] | str:
    """The json of a sample, or what is wrong with it."""
    try:
        meta = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        return "json is not UTF-8"
    except (ValueError, RecursionError) as fault:
        return f"json cannot be parsed: {fault}"
    if not isinstance(meta, dict):
        return "json is not an object"
    if meta.get("schema_version") != SAMPLE_SCHEMA:
        return f"unknown schema version {meta.get('schema_version')!r}, known is {SAMPLE_SCHEMA}"
    missing = [key for key in SAMPLE_KEYS if key not in meta]
    return f"json lacks {', '.join(missing)}" if missing else meta


def _image_faults(data: bytes, meta: dict[str, Any] | None) -> Iterator[str]:
    if meta is not None and hashlib.sha256(data).hexdigest() != meta["sha256"]:
        yield "sha256 of the image differs from its json: the bytes were changed"
    try:
        header = read_header(data)
        height, width, _ = decode_image(data).shape
    except InputError as mistake:
        yield str(mistake)
        return
    if meta is not None:
        found = {"format": header.format, "mode": header.mode, "width": width, "height": height}
        for name, value in found.items():
            if meta[name] != value:
                yield f"json says {name} {meta[name]!r}, the image has {value!r}"

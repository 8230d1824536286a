"""From a folder of images to a shard folder with its index: one pass over the files, then splits, then index."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.decode import EXTENSIONS
from data_engine.index import key_hash, write_index
from data_engine.output_folder import REJECTED_FILE, check_output, replaced_folder
from data_engine.progress import tracked
from data_engine.shards import MemberPlace, ShardFile, ShardWriter, sample_key
from data_engine.sources.image_folder import ImageFile, Rejected, examine, list_files
from data_engine.splits import (
    SPLITS,
    check_leaks,
    group_pattern,
    groups_of,
    join_copies,
    read_split_file,
    split_by_file,
    split_by_hash,
)
from mmzoo.errors import InputError

SHARD_BYTES = 256_000_000
DEFAULT_VAL_FRACTION = 0.1


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What to build from what.

    `val_fraction`: share of groups in "val" (default 0.1), in [0, 1]; or `split_file`: JSON {relative path: split}.
    `group`: regex over relative paths, see splits.py. `shard_bytes`: size to stay below, in bytes.
    """

    source: Path
    output: Path
    val_fraction: float | None = None
    split_file: Path | None = None
    group: str | None = None
    shard_bytes: int = SHARD_BYTES
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What was built. `rules`: how often each image rule of decode.py applied; `duplicates`: pairs of equal files."""

    output: str
    identity: str
    images: int
    shards: int
    bytes: int
    splits: dict[str, int]
    formats: dict[str, int]
    rules: dict[str, int]
    skipped: list[str]
    rejected: list[dict[str, str]]
    duplicates: list[tuple[str, str]]


@dataclass(slots=True)
class _Collected:
    """What one pass over the files leaves, in the order of the keys; the image bytes are in the shards by now."""

    images: list[ImageFile] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    places: list[list[MemberPlace]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    rules: Counter[str] = field(default_factory=Counter)


def build_image_shards(settings: BuildSettings) -> BuildSummary:
    """Builds the shards of an image folder. InputError for a user's mistake; then nothing is left behind."""
    _check(settings)
    files = list_files(settings.source, leave_out=settings.output)
    if not files:
        raise InputError(f"{settings.source} is empty. Give the folder that holds the images")
    listed = read_split_file(settings.split_file) if settings.split_file else None
    pattern = group_pattern(settings.group)
    with replaced_folder(settings.output, settings.overwrite) as folder:
        try:
            collected, shards = _write_shards(settings, files, folder)
            splits, duplicates = _split(settings, collected, files, listed, pattern)
            _write_rejected(folder, settings, collected.rejected)
            identity = write_index(
                folder, _description(settings, collected, splits, listed), shards, _columns(collected, splits)
            )
        except OSError as fault:
            raise InputError(f"cannot write {settings.output}: {fault.strerror or fault}") from None
    return BuildSummary(
        output=str(settings.output),
        identity=identity,
        images=len(collected.images),
        shards=len(shards),
        bytes=sum(shard.bytes for shard in shards),
        splits=_counts(splits),
        formats=dict(sorted(Counter(image.header.format for image in collected.images).items())),
        rules=dict(sorted((+collected.rules).items())),
        skipped=sorted(collected.skipped),
        rejected=[asdict(rejected) for rejected in sorted(collected.rejected, key=lambda item: item.path)],
        duplicates=duplicates,
    )


def _check(settings: BuildSettings) -> None:
    if settings.val_fraction is not None and not 0 <= settings.val_fraction <= 1:
        raise InputError(f"--val-fraction {settings.val_fraction} is not between 0 and 1")
    if settings.split_file and (settings.val_fraction is not None):
        raise InputError("--split-file and --val-fraction exclude each other. Give one")
    if settings.shard_bytes < 1:
        raise InputError("--shard-size must be above 0")
    source, output = settings.source.resolve(), settings.output.resolve()
    if output == source or output in source.parents:
        raise InputError(f"the output {settings.output} would hold the images themselves. Name another output folder")
    check_output(settings.output, settings.overwrite)


def _source_name(settings: BuildSettings) -> str:
    return settings.source.resolve().name or "images"


def _write_shards(settings: BuildSettings, files: Sequence[str], folder: Path) -> tuple[_Collected, list[ShardFile]]:
    collected = _Collected()
    keyed = sorted((sample_key(path), path) for path in files)
    with ShardWriter(folder, settings.shard_bytes) as writer:
        for key, path in tracked(keyed, "building", len(keyed)):
            found = examine(settings.source, path, collected.rules)
            if isinstance(found, ImageFile):
                if collected.keys and collected.keys[-1] == key:
                    raise InputError(f"{path!r} and {collected.images[-1].path!r} get the same key {key}. Rename one")
                collected.places.append(_write_sample(writer, key, found, _source_name(settings)))
                collected.keys.append(key)
                collected.images.append(replace(found, data=b""))
            elif found is None:
                collected.skipped.append(path)
            else:
                collected.rejected.append(found)
    if not collected.images:
        raise InputError(_no_image(settings, collected))
    return collected, writer.shards


def _no_image(settings: BuildSettings, collected: _Collected) -> str:
    if not collected.rejected:
        return f"no image among the {len(collected.skipped)} files of {settings.source}. Known: {', '.join(EXTENSIONS)}"
    first = min(collected.rejected, key=lambda item: item.path)
    return (
        f"none of the {len(collected.rejected)} images of {settings.source} is sound. "
        f"The first: {first.path!r}: {first.reason}"
    )


def _write_sample(writer: ShardWriter, key: str, image: ImageFile, source: str) -> list[MemberPlace]:
    return writer.add(key, {EXTENSIONS[image.header.format]: image.data, "json": image.json_member(source)})


def _split(
    settings: BuildSettings,
    collected: _Collected,
    files: Sequence[str],
    listed: dict[str, str] | None,
    pattern: re.Pattern[str] | None,
) -> tuple[list[str], list[tuple[str, str]]]:
    paths = [image.path for image in collected.images]
    groups = groups_of(paths, pattern)
    if pattern is None and listed is None:
        groups = join_copies(groups, [image.sha256 for image in collected.images])
    by_hash = listed is None
    splits = split_by_hash(groups, _val_fraction(settings)) if by_hash else split_by_file(paths, listed, files)
    return splits, check_leaks(paths, groups, [image.sha256 for image in collected.images], splits)


def _val_fraction(settings: BuildSettings) -> float:
    return DEFAULT_VAL_FRACTION if settings.val_fraction is None else settings.val_fraction


def _counts(splits: Sequence[str]) -> dict[str, int]:
    return {split: splits.count(split) for split in SPLITS}


def _write_rejected(folder: Path, settings: BuildSettings, rejected: Sequence[Rejected]) -> None:
    if not rejected:
        return
    rows = [
        json.dumps({"source": _source_name(settings), **asdict(item)}, ensure_ascii=False)
        for item in sorted(rejected, key=lambda item: item.path)
    ]
    (folder / REJECTED_FILE).write_text("\n".join(rows) + "\n", encoding="utf-8")


def _description(
    settings: BuildSettings, collected: _Collected, splits: Sequence[str], listed: dict[str, str] | None
) -> dict[str, Any]:
    """The part of index.json that speaks of content. No absolute path: equal images make an equal index anywhere."""
    how = {"method": "file"} if listed else {"method": "hash", "val_fraction": _val_fraction(settings)}
    return {
        "kind": "images",
        "source": _source_name(settings),
        "fields": ["image", "json"],
        "formats": dict(sorted(Counter(image.header.format for image in collected.images).items())),
        "splits": {"names": list(SPLITS), "counts": _counts(splits), "group": settings.group, **how},
        "arguments": {"shard_bytes": settings.shard_bytes},
        "rejected": len(collected.rejected),
    }


def _columns(collected: _Collected, splits: Sequence[str]) -> dict[str, np.ndarray]:
    return {
        "shard": np.array([places[0].shard for places in collected.places], np.int32),
        "offset": np.array([[place.offset for place in places] for places in collected.places], np.int64),
        "size": np.array([[place.size for place in places] for places in collected.places], np.int64),
        "key_hash": np.array([key_hash(key) for key in collected.keys], np.uint64),
        "split": np.array([SPLITS.index(split) for split in splits], np.uint8),
        "width": np.array([image.width for image in collected.images], np.int32),
        "height": np.array([image.height for image in collected.images], np.int32),
    }

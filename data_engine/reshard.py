"""`mmzoo data reshard` and `mmzoo data merge`: shard folders written anew as one, samples left out where asked.

Members, keys and splits stay as they are, byte for byte; only which tar a sample lies in changes. The sources are not
touched. The data card of records is made anew from what is there. `--without removed.jsonl` is what `mmzoo data clean`
wrote.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.build import byte_size
from data_engine.code_fields import CODES
from data_engine.energon_meta import META_FOLDER
from data_engine.index import ShardIndex, write_index
from data_engine.output_folder import replaced_folder
from data_engine.progress import tracked
from data_engine.reader import ShardReader
from data_engine.records import RECORDS
from data_engine.remote import open_index
from data_engine.removals import ListedRemoval, read_removals
from data_engine.reshard_records import Kept, reshard_records
from data_engine.shards import BLOCK, MemberPlace, ShardFile, ShardWriter
from mmzoo.errors import EXIT_OK, CommandParser, InputError

KINDS = ("images", "codes", RECORDS)
COLUMNS = ("key_hash", "split", "width", "height")  # one value a row, taken along


@dataclass(slots=True)
class _Written:
    places: list[list[MemberPlace]] = field(default_factory=list)
    hashes: list[tuple[str, str]] = field(default_factory=list)  # (sha256 of the picture, key)
    formats: Counter[str] = field(default_factory=Counter)


def reshard(
    sources: Sequence[ShardIndex], output: Path, shard_bytes: int, without: Mapping[str, ListedRemoval] | None = None
) -> tuple[int, int]:
    """Writes the samples of all `sources`, by key, into `output`; (samples, shards) of it.

    `without`: keys to leave out, in whichever source. InputError, and nothing left behind: kinds or fields that differ,
    a key in two sources, an unknown key in `without`, the same picture in two splits, nothing left.
    """
    without = without or {}
    _check_alike(sources)
    readers = [ShardReader(index) for index in sources]
    listed = sorted(
        (reader.key(row), number, row) for number, reader in enumerate(readers) for row in range(reader.index.count)
    )
    for (key, one, _), (other, two, _) in itertools.pairwise(listed):
        if key == other:
            raise InputError(f"key {key} is in {sources[one].folder} and in {sources[two].folder}. Leave one out")
    unknown = set(without).difference(key for key, _, _ in listed)
    if unknown:
        raise InputError(f"{min(unknown)!r} is to be left out, but is in none of the shards. Take their own list")
    kept = [entry for entry in listed if entry[0] not in without]
    if not kept:
        raise InputError("no sample would be left. Shorten the list of --without")
    arguments = {"shard_bytes": shard_bytes, "from": [index.identity for index in sources]}
    left_out = Counter(each.check for each in without.values())
    with replaced_folder(output, overwrite=False) as folder:
        title = output.resolve().name
        try:
            if sources[0].content["kind"] == RECORDS:
                shards = reshard_records(readers, kept, folder, title, arguments, left_out)
            else:
                shards = _reshard_columns(readers, kept, folder, title, arguments)
        except OSError as fault:
            raise InputError(f"cannot write {output}: {fault.strerror}. Free space and run again") from None
    return len(kept), len(shards)


def _reshard_columns(
    readers: Sequence[ShardReader], kept: Sequence[Kept], folder: Path, title: str, arguments: dict[str, Any]
) -> list[ShardFile]:
    """Of images and codes, whose index has one value a row beside the places: these values are taken along."""
    sources = [reader.index for reader in readers]
    written = _Written()
    with ShardWriter(folder, arguments["shard_bytes"]) as writer:
        for key, number, row in tracked(kept, "writing samples", len(kept)):
            _copy(readers[number], row, key, writer, written)
    columns = _columns(sources, kept, written)
    _check_leaks(written, columns["split"])
    write_index(folder, _description(sources, title, arguments, written, columns), writer.shards, columns)
    return writer.shards


def _check_alike(sources: Sequence[ShardIndex]) -> None:
    first = sources[0]
    for index in sources:
        if index.content["kind"] not in KINDS:
            kind = index.content["kind"]
            raise InputError(f"{index.folder} holds {kind}, which cannot be resharded. Known: {', '.join(KINDS)}")
        names = ("kind",) if first.content["kind"] == RECORDS else ("kind", "fields", CODES)  # a record may lack fields
        for name in names:
            if index.content.get(name) != first.content.get(name):
                raise InputError(f"{first.folder} and {index.folder} differ in {name}. Merge shards of one kind")
        if index.splits != first.splits:
            raise InputError(f"{first.folder} and {index.folder} have other splits. Build them with the same ones")


def _copy(reader: ShardReader, row: int, key: str, writer: ShardWriter, written: _Written) -> None:
    """One sample; the extensions of its members are those in their tar headers."""
    index = reader.index
    members = {}
    for name in index.fields:
        shard, offset, _ = index.span(row, name)
        header = reader.read_at(row, shard, offset - BLOCK, BLOCK)
        extension = header[:100].partition(b"\0")[0].decode("ascii").partition(".")[2]
        members[extension] = reader.raw(row, name)
    written.places.append(writer.add(key, members))
    meta = reader.meta(row)
    if "image" in index.fields:
        written.hashes.append((str(meta.get("sha256", key)), key))
        written.formats[str(meta.get("format", "unknown"))] += 1


def _columns(sources: Sequence[ShardIndex], kept: Sequence[Kept], written: _Written) -> dict[str, np.ndarray]:
    columns = {
        "shard": np.array([places[0].shard for places in written.places], np.int32),
        "offset": np.array([[place.offset for place in places] for places in written.places], np.int64),
        "size": np.array([[place.size for place in places] for places in written.places], np.int64),
    }
    for name in COLUMNS:
        held = [index.column(name) for index in sources]
        columns[name] = np.array([held[number][row] for _, number, row in kept], held[0].dtype)
    return columns


def _check_leaks(written: _Written, splits: np.ndarray) -> None:
    if not written.hashes:  # codes: no pictures that could stand in two splits
        return
    first: dict[str, tuple[str, int]] = {}
    for (picture, key), split in zip(written.hashes, splits.tolist(), strict=True):
        other, other_split = first.setdefault(picture, (key, split))
        if other_split != split:
            raise InputError(f"leak: {other} and {key} are one picture in two splits. Leave one out with --without")


def _description(
    sources: Sequence[ShardIndex],
    title: str,
    arguments: dict[str, Any],
    written: _Written,
    columns: dict[str, np.ndarray],
) -> dict[str, Any]:
    first = sources[0]
    names = {index.source for index in sources}
    counts = {name: int((columns["split"] == number).sum()) for number, name in enumerate(first.splits)}
    optional = {name: first.content[name] for name in (CODES,) if name in first.content}
    return {
        "kind": first.content["kind"],
        "source": names.pop() if len(names) == 1 else title,
        "fields": first.fields,
        "formats": dict(sorted(written.formats.items())),
        "splits": {"names": first.splits, "counts": counts, "method": "kept", "group": None},
        "arguments": arguments,
        **optional,
    }


def main(argv: Sequence[str], prog: str) -> int:
    """`mmzoo data reshard SHARDS` and `mmzoo data merge SHARDS SHARDS ...`."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("shards", nargs="+", help="shard folders, or URLs of some")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DST", help="new folder for the shards")
    parser.add_argument(
        "--without", type=Path, metavar="FILE", help="removed.jsonl of mmzoo data clean: samples to leave out"
    )
    parser.add_argument("--shard-size", default="256MB", help="size that a shard stays below (default 256MB)")
    given = parser.parse_args(argv)
    without = read_removals(given.without) if given.without else {}
    sources = [open_index(place) for place in given.shards]
    samples, shards = reshard(sources, given.output, byte_size(given.shard_size), without)
    prepared = [index.folder for index in sources if (index.folder / META_FOLDER).exists()]
    if prepared and not (given.output / META_FOLDER).exists():
        sys.stderr.write(f"{prepared[0]} was prepared for Energon, the new shards are not: energon prepare\n")
    sys.stderr.write(f"{samples} samples in {shards} shards, {len(without)} left out: {given.output}\n")
    return EXIT_OK

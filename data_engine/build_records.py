"""`mmzoo data build -c CONFIG`: samples of several sources become one shard folder, in parallel.

Parts (build_parts.py) are written in a hidden folder beside the output, by any number of processes; then they are laid
end to end into shards, the index and the card are written, and the whole is renamed. A build that is killed leaves the
parts, and the next one goes on with them; the output is there whole or not at all.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.build_config import BuildConfig
from data_engine.build_parts import Part, PartFile, read_part, read_parts, write_part
from data_engine.build_splits import split_rows
from data_engine.data_card import card_page, make_card
from data_engine.energon_meta import check_energon, sample_places, write_energon
from data_engine.index import key_hash, write_index
from data_engine.output_folder import BUILD_FILE, CARD_FILE, CARD_PAGE, REJECTED_FILE, check_output, put_in_place
from data_engine.progress import tracked
from data_engine.records import RECORDS
from data_engine.sample_facts import fact_arrays
from data_engine.shards import END_OF_TAR, ShardFile, open_for_writing, shard_name
from data_engine.splits import SPLITS
from mmzoo.errors import InputError

PARENT_DIED = 1  # PR_SET_PDEATHSIG of prctl(2)
EXTENT = ("width", "height")
FIELD_ORDER = ("json", "image", "mask", "raster")


@dataclass(frozen=True, slots=True)
class RecordSummary:
    """What was built. `made`: False when the output was already the result. `reused`: parts of an earlier start."""

    output: str
    identity: str
    made: bool
    reused: int
    card: dict[str, Any]


def build_records(config: BuildConfig) -> RecordSummary:
    """Builds, or finds that nothing is to be done. InputError for a user's mistake; parts that are whole stay."""
    output = config.output.resolve()
    earlier = _earlier(output)
    if earlier and earlier["fingerprint"] == _fingerprint(config, (part.name for part in read_parts(config.sources))):
        card = json.loads((output / CARD_FILE).read_bytes())
        return RecordSummary(str(config.output), earlier["identity"], False, 0, card)
    check_output(output, config.overwrite)
    with _work_folder(output) as work:
        try:
            parts, reused = _write_parts(config, work)
            summary = _finish(config, work, parts, reused)
        except OSError as fault:
            raise InputError(
                f"cannot write {work}: {fault.strerror or fault}. Free space and run again: whole parts are kept"
            ) from None
    shutil.rmtree(work, ignore_errors=True)
    return summary


def _earlier(output: Path) -> dict[str, Any] | None:
    """What an earlier build noted in its output, if there is one."""
    try:
        content = json.loads((output / BUILD_FILE).read_bytes())
        return content if {"fingerprint", "identity"} <= set(content) and (output / CARD_FILE).is_file() else None
    except (OSError, ValueError, TypeError):
        return None


def _fingerprint(config: BuildConfig, names: Any) -> str:
    digest = hashlib.sha256(json.dumps(config.shaping, sort_keys=True).encode())
    for name in names:
        digest.update(name.encode())
    return digest.hexdigest()


@contextmanager
def _work_folder(output: Path) -> Iterator[Path]:
    """The hidden folder of a build, kept for the next start; InputError: another build is in it."""
    existing = next(parent for parent in output.parents if parent.is_dir())
    work = existing / f".{output.name}.parts"
    try:
        work.mkdir(exist_ok=True)
    except OSError as fault:
        raise InputError(f"cannot write to {existing}: {fault.strerror}. Name another output folder") from None
    lock = os.open(work, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another build of {output} is running. Wait for it, or name another output") from None
        for leftover in work.glob("*.building"):
            leftover.unlink()
        yield work
    finally:
        with suppress(OSError):  # it is not empty: parts are kept for the next start
            work.rmdir()
        os.close(lock)


def _write_parts(config: BuildConfig, work: Path) -> tuple[list[PartFile], int]:
    """All parts, in order, and how many were there already."""
    parts: list[PartFile] = []
    reused = 0
    with _writers(config.workers) as submit:
        waiting: deque[tuple[str, Future[None] | None]] = deque()

        def take() -> None:
            name, future = waiting.popleft()
            if future is not None:
                future.result()
            part = read_part(work, name)
            if part is None:
                raise InputError(f"part {name} in {work} vanished while the build ran. Run again")
            parts.append(part)
            _check_rejected(config, parts)

        try:
            for part in tracked(read_parts(config.sources), "building, parts", None):
                known = read_part(work, part.name) is not None
                reused += known
                waiting.append((part.name, None if known else submit(work, part)))
                if len(waiting) > 2 * config.workers:
                    take()
            while waiting:
                take()
        except BrokenProcessPool:
            raise InputError(
                "a process of the build was killed, for want of memory perhaps. Give fewer workers and run again: "
                "whole parts are kept"
            ) from None
    return parts, reused


def _check_rejected(config: BuildConfig, parts: Sequence[PartFile]) -> None:
    """InputError: more damaged samples than the config puts up with."""
    rejected = [item for part in parts for item in part.rejected] if parts[-1].rejected else []
    if len(rejected) > config.max_rejected:
        item = rejected[config.max_rejected]
        raise InputError(
            f"source {item['source']}, {item['origin']}: {item['reason']}. max_rejected is {config.max_rejected}. "
            "Mend the file or take the row out, or allow more; whole parts are kept"
        )


@contextmanager
def _writers(workers: int) -> Iterator[Any]:
    """submit(folder, part) -> a future; with one worker the part is written at once, in this process."""
    if workers == 1:

        def at_once(folder: Path, part: Part) -> Future[None]:
            future: Future[None] = Future()
            write_part(folder, part.name, part.samples)
            future.set_result(None)
            return future

        yield at_once
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of whoever calls
    with ProcessPoolExecutor(workers, context, _begin_worker, (os.getpid(),)) as pool:
        try:
            yield lambda folder, part: pool.submit(write_part, folder, part.name, part.samples)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _begin_worker(parent: int) -> None:
    """A worker leaves Ctrl-C to the parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PARENT_DIED, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _finish(config: BuildConfig, work: Path, parts: Sequence[PartFile], reused: int) -> RecordSummary:
    """Shards, index and card in a folder of their own, which then becomes the output."""
    rows = [row for part in parts for row in part.rows]
    rejected = [item for part in parts for item in part.rejected]
    if not rows:
        raise InputError(f"none of the {len(rejected)} samples is sound. The first: {rejected[0]['reason']}")
    splits, _ = split_rows(rows, config.sources, config.val_fraction)
    if config.energon:
        check_energon(config.energon, rows, splits)
    folder = work / "result"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shards, places = _lay_out(config, work, folder, parts)
    fields = sorted({name for row in rows for name, _, _ in row["places"]}, key=_field_rank)
    card = make_card(rows, splits, rejected, len(shards))
    identity = write_index(folder, _description(config, card, fields), shards, _columns(rows, splits, places, fields))
    rules = Counter()
    for part in parts:
        rules.update(part.rules)
    card |= {"identity": identity, "image_rules": dict(sorted((+rules).items()))}
    _write_notes(config, folder, card, rejected)
    if config.energon:
        write_energon(folder, config.energon, splits[0], shards, sample_places(rows, places))
    fingerprint = _fingerprint(config, (part.name for part in parts))
    _write(folder / BUILD_FILE, _json({"fingerprint": fingerprint, "identity": identity}))
    put_in_place(folder, config.output.resolve(), config.overwrite)
    return RecordSummary(str(config.output), identity, True, reused, card)


def _field_rank(name: str) -> tuple[int, int]:
    stem = name.rstrip("0123456789")
    return FIELD_ORDER.index(stem), int(name[len(stem) :] or 0)


def _lay_out(
    config: BuildConfig, work: Path, folder: Path, parts: Sequence[PartFile]
) -> tuple[list[ShardFile], list[tuple[int, int]]]:
    """Writes the shards: the parts end to end, a new shard where the next sample would pass the size.

    Returns the shards, and of each sample the number of its shard and its offset there, in bytes.
    """
    shards: list[ShardFile] = []
    places: list[tuple[int, int]] = []
    with _Shard(folder, shards) as shard:
        for part in tracked(parts, "writing shards, parts", len(parts)):
            with (work / f"{part.name}.tar").open("rb") as file:
                for row in part.rows:
                    if shard.samples and shard.offset + row["bytes"] + len(END_OF_TAR) > config.shard_bytes:
                        shard.end()
                    places.append((len(shards), shard.offset))
                    shard.add(file.read(row["bytes"]))
    return shards, places


class _Shard:
    """The shard that is being written; a finished one goes to `shards`. Use as a context."""

    def __init__(self, folder: Path, shards: list[ShardFile]) -> None:
        self.folder, self.shards = folder, shards
        self._file: Any = None
        self.offset = self.samples = 0
        self._hash = hashlib.sha256()

    def __enter__(self) -> _Shard:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def add(self, data: bytes) -> None:
        """Appends the members of one sample."""
        if self._file is None:
            self._file = open_for_writing(self.folder / shard_name(len(self.shards)))
        self._put(data)
        self.samples += 1

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.offset += len(data)

    def end(self) -> None:
        """Ends the shard, on the disk."""
        if self._file is None:
            return
        self._put(END_OF_TAR)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        name = shard_name(len(self.shards))
        self.shards.append(ShardFile(name, self.offset, self._hash.hexdigest(), self.samples))
        self._file, self._hash = None, hashlib.sha256()
        self.offset = self.samples = 0


def _columns(
    rows: Sequence[dict[str, Any]], splits: Sequence[str], places: Sequence[tuple[int, int]], fields: Sequence[str]
) -> dict[str, np.ndarray]:
    offsets, sizes = (np.zeros((len(rows), len(fields)), np.int64) for _ in range(2))
    columns = {name: column for column, name in enumerate(fields)}
    for number, (row, (_, start)) in enumerate(zip(rows, places, strict=True)):
        for name, offset, size in row["places"]:
            offsets[number, columns[name]], sizes[number, columns[name]] = start + offset, size
    return {
        "shard": np.array([shard for shard, _ in places], np.int32),
        "offset": offsets,
        "size": sizes,
        "key_hash": np.array([key_hash(row["key"]) for row in rows], np.uint64),
        "split": np.array([SPLITS.index(split) for split in splits], np.uint8),
        **fact_arrays([row["text"] for row in rows], [row["sizes"] for row in rows]),
        **{name: np.array([row["extent"][axis] for row in rows], np.int32) for axis, name in enumerate(EXTENT)},
    }


def _description(config: BuildConfig, card: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """The part of index.json that speaks of content; no path of this machine."""
    counts = {split: card["splits"].get(split, 0) for split in SPLITS}
    return {
        "kind": RECORDS,
        "source": config.sources[0].source.name if len(config.sources) == 1 else config.output.resolve().name,
        "sources": list(card["sources"]),
        "fields": list(fields),
        "formats": card["formats"],
        "splits": {"names": list(SPLITS), "counts": counts, "method": "hash", "val_fraction": config.val_fraction},
        "arguments": {"shard_bytes": config.shard_bytes},
        "rejected": card["rejected"],
    }


def _write_notes(config: BuildConfig, folder: Path, card: dict[str, Any], rejected: Sequence[dict[str, str]]) -> None:
    _write(folder / CARD_FILE, _json(card))
    _write(folder / CARD_PAGE, card_page(card, config.output.resolve().name))
    if rejected:
        lines = [json.dumps(item, ensure_ascii=False) for item in rejected]
        _write(folder / REJECTED_FILE, "\n".join(lines) + "\n")


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def summary_text(summary: RecordSummary) -> str:
    """The summary for people."""
    card = summary.card
    splits = ", ".join(f"{count} {name}" for name, count in card["splits"].items())
    if not summary.made:
        return f"nothing to do: {summary.output} was built from these sources already ({card['samples']} samples)"
    lines = [
        f"{card['samples']} samples ({splits}) in {card['shards']} shards, "
        f"{card['bytes'] / 1e6:.1f} MB: {summary.output}"
    ]
    lines += [f"  {name}: {entry['samples']}" for name, entry in card["sources"].items()]
    lines += [f"{summary.reused} parts of an earlier start were used again"] if summary.reused else []
    lines += [f"{card['rejected']} rejected, see {REJECTED_FILE}"] if card["rejected"] else []
    return "\n".join([*lines, f"card: {CARD_PAGE}"])


def build_from_config(config: BuildConfig, as_json: bool) -> None:
    """The command's work: builds and says what came of it."""
    summary = build_records(config)
    if as_json:
        sys.stdout.write(json.dumps(asdict(summary), indent=1) + "\n")
    else:
        sys.stderr.write(summary_text(summary) + "\n")

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

from data_engine.build_config import BuildConfig
from data_engine.build_parts import Part, PartFile, read_part, read_parts, write_part
from data_engine.build_splits import split_rows
from data_engine.data_card import inline
from data_engine.energon_meta import check_energon, sample_places, write_energon
from data_engine.output_folder import BUILD_FILE, CARD_FILE, CARD_PAGE, REJECTED_FILE, check_output, put_in_place
from data_engine.progress import tracked
from data_engine.record_folder import WrittenRecords, finish_records, json_text, write_text
from data_engine.record_transforms import summed
from data_engine.shards import END_OF_TAR, ShardFile, open_for_writing, shard_name
from data_engine.splits import SPLITS
from mmzoo.errors import InputError

PARENT_DIED = 1  # PR_SET_PDEATHSIG of prctl(2)
RESULT = "result"  # the folder that becomes the output


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
    if earlier and earlier["fingerprint"] == _fingerprint(config, (part.name for part in read_parts(config))):
        card = json.loads((output / CARD_FILE).read_bytes())
        _sweep(output)
        return RecordSummary(str(config.output), earlier["identity"], False, 0, card)
    check_output(output, config.overwrite)
    with _work_folder(output) as work:
        check_output(output, config.overwrite)  # again: another build of it may just have ended
        try:
            parts, reused = _write_parts(config, work)
            summary = _finish(config, work, parts, reused)
        except OSError as fault:
            raise InputError(
                f"cannot write {work}: {fault.strerror or fault}. Free space and run again: whole parts are kept"
            ) from None
        shutil.rmtree(work, ignore_errors=True)  # as long as it is locked: whoever waits makes one of its own
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
    work = _work_path(output)
    try:
        work.mkdir(exist_ok=True)
        lock = os.open(work, os.O_RDONLY)
    except OSError as fault:
        raise InputError(f"cannot write to {work.parent}: {fault.strerror}. Name another output folder") from None
    try:
        if not _is_mine(work, lock):  # and then it is not to be removed either, empty as it may be
            raise InputError(f"another build of {output} is running. Wait for it, or name another output")
        try:
            for leftover in work.glob("*.building"):
                leftover.unlink()
            _give_back(work, output)
            yield work
        finally:
            with suppress(OSError):  # it is not empty: parts are kept for the next start
                work.rmdir()
    finally:
        os.close(lock)


def _is_mine(work: Path, lock: int) -> bool:
    """Locks the opened folder; False when another build has it, or has just removed it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(work.stat(), os.fstat(lock))
    except (BlockingIOError, FileNotFoundError):
        return False


def _work_path(output: Path) -> Path:
    existing = next(parent for parent in output.parents if parent.is_dir())
    return existing / f".{output.name}.parts"


def _give_back(work: Path, output: Path) -> None:
    """What a build had moved aside when it was killed: an earlier output, which comes back where none is."""
    aside = work / f"{RESULT}.old"
    if aside.is_dir() and not output.exists():
        aside.rename(output)
    shutil.rmtree(aside, ignore_errors=True)


def _sweep(output: Path) -> None:
    """Removes the parts of a build that was killed when its output was in place already."""
    if _work_path(output).is_dir():
        with suppress(InputError), _work_folder(output) as work:
            shutil.rmtree(work, ignore_errors=True)


def _write_parts(config: BuildConfig, work: Path) -> tuple[list[PartFile], int]:
    """All parts, in order, and how many were there already."""
    parts: list[PartFile] = []
    reused = 0
    with _writers(config.workers, config.transforms) as submit:
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
            for part in tracked(read_parts(config), "building, parts", None):
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
def _writers(workers: int, transforms: Sequence[str] = ()) -> Iterator[Any]:
    """submit(folder, part) -> a future; with one worker the part is written at once, in this process."""
    if workers == 1:

        def at_once(folder: Path, part: Part) -> Future[None]:
            future: Future[None] = Future()
            write_part(folder, part.name, part.samples, transforms)
            future.set_result(None)
            return future

        yield at_once
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of whoever calls
    with ProcessPoolExecutor(workers, context, _begin_worker, (os.getpid(),)) as pool:
        try:
            yield lambda folder, part: pool.submit(write_part, folder, part.name, part.samples, transforms)
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
    folder = work / RESULT
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shards, places = _lay_out(config, work, folder, parts)
    rules = Counter()
    for part in parts:
        rules.update(part.rules)
    notes: dict[str, Any] = {"image_rules": dict(sorted((+rules).items()))}
    if config.without:
        notes["left_out"] = dict(sorted(Counter(each.check for each in config.without.values()).items()))
    if config.transforms:
        notes["transforms"] = summed([part.transforms for part in parts], config.transforms)
    written = WrittenRecords(rows, splits, places, shards, rejected, notes)
    card = finish_records(folder, config.output.resolve().name, written, _description(config))
    if config.energon:
        write_energon(folder, config.energon, splits[0], shards, sample_places(rows, places))
    fingerprint = _fingerprint(config, (part.name for part in parts))
    write_text(folder / BUILD_FILE, json_text({"fingerprint": fingerprint, "identity": card["identity"]}))
    put_in_place(folder, config.output.resolve(), config.overwrite)
    return RecordSummary(str(config.output), card["identity"], True, reused, card)


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


def _description(config: BuildConfig) -> dict[str, Any]:
    """What index.json says of how the set was made."""
    names = [each.source.name for each in config.sources]
    placed = {
        each.source.name: {"split": each.split, "group": each.group and each.group.pattern}
        for each in config.sources
        if each.split or each.group
    }
    return {
        "source": names[0] if len(names) == 1 else config.output.resolve().name,
        "splits": {"names": list(SPLITS), "method": "hash", "val_fraction": config.val_fraction}
        | ({"placed": placed} if placed else {}),
        "arguments": {"shard_bytes": config.shard_bytes},
        **({"left_out": len(config.without)} if config.without else {}),
        **({"transforms": list(config.transforms)} if config.transforms else {}),
    }


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
    left_out = card.get("left_out", {})
    lines += [f"{sum(left_out.values())} left out ({inline(left_out)})"] if left_out else []
    lines += [f"{name}: {inline(counts)}" for name, counts in card.get("transforms", {}).items()]
    lines += [f"{card['rejected']} rejected, see {REJECTED_FILE}"] if card["rejected"] else []
    return "\n".join([*lines, f"card: {CARD_PAGE}"])


def build_from_config(config: BuildConfig, as_json: bool) -> None:
    """The command's work: builds and says what came of it."""
    summary = build_records(config)
    if as_json:
        sys.stdout.write(json.dumps(asdict(summary), indent=1) + "\n")
    else:
        sys.stderr.write(summary_text(summary) + "\n")

"""Every way in which the tests damage a sound shard folder, by name; what is left of it afterwards is stated."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_engine.file_facts import image_facts
from data_engine.index import INDEX_FILE, file_sha256
from data_engine.record_members import pack_record
from data_engine.stored_sample import StoredSample
from tests.data_engine.conftest import encode, picture

TAR = "shard-000000.tar"
Entry = tuple[tarfile.TarInfo, bytes]


def members(folder: Path) -> list[Entry]:
    with tarfile.open(folder / TAR) as archive:
        streams = [(info, archive.extractfile(info)) for info in archive.getmembers()]
        return [(info, stream.read()) for info, stream in streams if stream]


def rewrite(folder: Path, entries: Sequence[Entry]) -> None:
    with tarfile.open(folder / TAR, "w", format=tarfile.USTAR_FORMAT) as archive:
        for info, data in entries:
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))


def key(info: tarfile.TarInfo) -> str:
    return info.name.partition(".")[0]


def first(entries: Sequence[Entry], suffix: tuple[str, ...]) -> int:
    return next(number for number, (info, _) in enumerate(entries) if info.name.endswith(suffix))


def change_json(folder: Path, change: Callable[[bytes], bytes]) -> None:
    entries = members(folder)
    number = first(entries, ("json",))
    entries[number] = (entries[number][0], change(entries[number][1]))
    rewrite(folder, entries)


def change_image(folder: Path, change: Callable[[bytes], bytes]) -> None:
    entries = members(folder)
    number = first(entries, (".jpg", ".png"))
    entries[number] = (entries[number][0], change(entries[number][1]))
    rewrite(folder, entries)


def flip(folder: Path, offset: int) -> None:
    data = bytearray((folder / TAR).read_bytes())
    data[offset] ^= 0xFF
    (folder / TAR).write_bytes(data)


def flip_header(folder: Path, number: int) -> None:
    flip(folder, members(folder)[number][0].offset + 5)


def zeros_over_a_header(folder: Path) -> None:
    """As a bad sector reads, and to a reader of tars the end marker."""
    data = bytearray((folder / TAR).read_bytes())
    entries = members(folder)
    start = next(info.offset for info, _ in entries if key(info) != key(entries[0][0]))
    data[start : start + 1024] = bytes(1024)
    (folder / TAR).write_bytes(data)


def stale_tar() -> bytes:
    """What was in the file before something shorter was written over it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("zz-stale.json")
        info.size = len(data := pack_record(StoredSample("zz", "s", text="stale")).members["json"][1])
        archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def without(folder: Path, suffix: tuple[str, ...]) -> None:
    entries = members(folder)
    del entries[first(entries, suffix)]
    rewrite(folder, entries)


def with_member(name: str, type_: bytes = tarfile.REGTYPE) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        entries = members(folder)
        extra = tarfile.TarInfo(name.format(key=key(entries[-1][0])))
        extra.type, extra.linkname = type_, "/etc/passwd" if type_ != tarfile.REGTYPE else ""
        rewrite(folder, [*entries, (extra, entries[first(entries, (".png",))][1] if extra.isreg() else b"")])

    return damage


def other_kind(folder: Path) -> None:
    """A sound record among images, a sound image among records."""
    image = encode(picture(77), "PNG")
    facts = image_facts(image, Counter())[1]
    meta = json.dumps({"schema_version": 1, "source": "s", "path": "zz.png", **facts}).encode()
    record = pack_record(StoredSample("zz", "s", text="words")).members["json"][1]
    among_records = any(b'"conversation"' in data for _, data in members(folder))
    extra = {"zz.png": image, "zz.json": meta} if among_records else {"zz.json": record}
    rewrite(folder, [*members(folder), *((tarfile.TarInfo(name), data) for name, data in extra.items())])


def sample_again(folder: Path, wrong_first: bool = False) -> None:
    """The first sample once more at the end; with `wrong_first` the one at the start is damaged."""
    entries = members(folder)
    again = [entry for entry in entries if key(entry[0]) == key(entries[0][0])]
    if wrong_first:
        entries[0] = (entries[0][0], b"")
    rewrite(folder, [*entries, *again])


def member_twice(folder: Path) -> None:
    entries = members(folder)
    number = first(entries, (".jpg", ".png"))
    rewrite(folder, [*entries[: number + 1], *entries[number:]])


def last_sample_first(folder: Path) -> None:
    entries = members(folder)
    last = [entry for entry in entries if key(entry[0]) == key(entries[-1][0])]
    rewrite(folder, [*last, *(entry for entry in entries if entry not in last)])


def cut(folder: Path, count: int) -> None:
    os.truncate(folder / TAR, (folder / TAR).stat().st_size - count)


def cut_into_the_last(folder: Path) -> None:
    os.truncate(folder / TAR, members(folder)[-1][0].offset_data + 5)


def cut_behind_the_first(folder: Path) -> None:
    entries = members(folder)
    second = next(info for info, _ in entries if key(info) != key(entries[0][0]))
    os.truncate(folder / TAR, second.offset)


def padding(folder: Path) -> None:
    info, data = members(folder)[0]
    flip(folder, info.offset_data + len(data))


def newer_tar(folder: Path) -> None:
    entries = members(folder)
    for info, _ in entries:
        info.mtime = 5
    rewrite(folder, entries)


def column_lost(folder: Path, name: str) -> None:
    (folder / "index" / f"{name}.npy").unlink()


def offsets_elsewhere(folder: Path) -> None:
    column = folder / "index/offset.npy"
    np.save(column, np.load(column) + 512)
    file = folder / "index" / INDEX_FILE
    content = json.loads(file.read_text())
    content["columns"]["offset"]["sha256"] = file_sha256(column)
    file.write_text(json.dumps(content))


def broken_index(folder: Path) -> None:
    (folder / "index" / INDEX_FILE).write_text("{")


@dataclass(frozen=True)
class Damage:
    """`gone`: samples that cannot be kept; `found`: those that the tars hold, None: all four; `bare`: the index is lost
    whole, so the splits are."""

    do: Callable[[Path], object]
    gone: int = 0
    found: int = 4
    bare: bool = False


def damages(bomb: bytes) -> dict[str, Damage]:
    """By name; of a folder of four samples in one shard."""
    version = b'"schema_version": '
    return {
        "truncated by some of the end marker": Damage(lambda folder: cut(folder, 1024)),
        "truncated in the last sample": Damage(cut_into_the_last, 1),
        "truncated to nothing but the first": Damage(cut_behind_the_first, 3, 1),
        "header damaged in the middle": Damage(lambda folder: flip_header(folder, 3), 1),
        "first header damaged": Damage(lambda folder: flip_header(folder, 0), 1),
        "header and more filled with zeros": Damage(zeros_over_a_header, 1),
        "another tar behind the end": Damage(lambda f: (f / TAR).write_bytes((f / TAR).read_bytes() + stale_tar())),
        "flipped bytes in an image": Damage(lambda f: change_image(f, lambda data: data[:-40] + bytes(40)), 1),
        "zero-length member": Damage(lambda f: change_image(f, lambda data: b""), 1),
        "image missing": Damage(lambda f: without(f, (".jpg", ".png")), 1),
        "json missing": Damage(lambda f: without(f, ("json",)), 1),
        "duplicate key": Damage(sample_again, 0, 5),
        "duplicate key, the first damaged": Damage(lambda f: sample_again(f, wrong_first=True), 0, 5),
        "duplicate keys in another shard": Damage(lambda f: shutil.copy(f / TAR, f / "shard-000001.tar"), 0, 8),
        "the same member twice": Damage(member_twice),
        "key out of order": Damage(last_sample_first),
        "dotted stem": Damage(with_member("tile_12.5m_001.jpg"), 0, 5),
        "dotted stem of a sound key": Damage(with_member("{key}.5m_001.jpg")),
        "path with ..": Damage(with_member("../escape.jpg"), 0, 5),
        "absolute path": Damage(with_member("/etc/passwd.jpg"), 0, 5),
        "other characters": Damage(with_member("Über.jpg"), 0, 5),
        "key too long": Damage(with_member(f"{'z' * 81}.jpg"), 0, 5),
        "a sample of the other kind": Damage(other_kind, 0, 5),
        "pickle": Damage(with_member("zzz.pkl"), 0, 5),
        "pickle in a sound sample": Damage(with_member("{key}.pkl")),
        "unknown type": Damage(with_member("{key}.exe")),
        "symlink": Damage(with_member("zzz.jpg", tarfile.SYMTYPE)),
        "symlink in a sound sample": Damage(with_member("{key}.bmp", tarfile.SYMTYPE)),
        "hard link": Damage(with_member("zzz.jpg", tarfile.LNKTYPE)),
        "bomb": Damage(lambda f: change_image(f, lambda data: bomb), 1),
        "pickle under an image name": Damage(lambda f: change_image(f, lambda data: b"\x80\x04K\x01."), 1),
        "json not UTF-8": Damage(lambda f: change_json(f, lambda data: data.replace(b'"source', b'"\xffource')), 1),
        "json cut": Damage(lambda f: change_json(f, lambda data: data[:-1]), 1),
        "json no object": Damage(lambda f: change_json(f, lambda data: b"[1]"), 1),
        "json without keys": Damage(lambda f: change_json(f, lambda data: data[:1] + data[data.index(version) :]), 1),
        "json with another width": Damage(lambda f: change_json(f, lambda d: d.replace(b'th": 16', b'th": 17')), 1),
        "bytes between members": Damage(padding),
        "index older than the tar": Damage(newer_tar),
        "split column lost": Damage(lambda f: column_lost(f, "split")),
        "key column lost": Damage(lambda f: column_lost(f, "key_hash")),
        "offsets elsewhere": Damage(offsets_elsewhere),
        "shard renamed": Damage(lambda f: (f / TAR).rename(f / "shard-000009.tar")),
        "no index": Damage(lambda f: shutil.rmtree(f / "index"), bare=True),
        "index unreadable": Damage(broken_index, bare=True),
    }

"""Reading shards of tokens, 8 KiB of codes a picture (int16, 16 x 16 x 16): nothing to decode, all is the reader."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import webdataset

from data_engine.code_fields import CODES, CODES_EXTENSION, CodesField
from data_engine.index import ShardIndex, key_hash, write_index
from data_engine.reader import ShardReader
from data_engine.shards import ShardWriter
from tests.benchmarks.peers import streaming_formats
from tests.benchmarks.record import Comparison, NotMeasured
from tests.benchmarks.timing import Contender, interleaved

SAMPLES, SIDE, LEVELS, CODEBOOK, ROUNDS = 4000, 16, 16, 2**14, 9
LEAST_RATIO = 20.0


def make_shards(folder: Path) -> Path:
    """One shard of random codes, each sample with its json."""
    folder.mkdir()
    field = CodesField.of((SIDE, SIDE, LEVELS), CODEBOOK)
    random = np.random.default_rng(0)
    keys = [f"picture-{number:05}" for number in range(SAMPLES)]
    with ShardWriter(folder, 10**9) as writer:
        places = [
            writer.add(
                key,
                {
                    CODES_EXTENSION: field.pack(random.integers(0, CODEBOOK, (SIDE, SIDE, LEVELS), np.int16)),
                    "json": b'{"schema_version": 1}',
                },
            )
            for key in keys
        ]
    columns = {
        "shard": np.zeros(SAMPLES, np.int32),
        "offset": np.array([[member.offset for member in members] for members in places], np.int64),
        "size": np.array([[member.size for member in members] for members in places], np.int64),
        "key_hash": np.array([key_hash(key) for key in keys], np.uint64),
        "split": np.zeros(SAMPLES, np.uint8),
    }
    description = {
        "kind": "codes",
        "source": "made",
        "fields": [CODES, "json"],
        CODES: field.as_json(),
        "splits": {"names": ["train"]},
    }
    write_index(folder, description, writer.shards, columns)
    return folder


def ours(shards: Path) -> Iterator[bytes]:
    """All codes in stored order, as webdataset has them."""
    reader = ShardReader(ShardIndex.open(shards))
    return reader.scan(np.arange(reader.index.count), CODES)


def ours_shuffled(shards: Path) -> Iterator[bytes]:
    """The same in random order, one read each: what webdataset cannot do."""
    reader = ShardReader(ShardIndex.open(shards))
    return (reader.raw(row, CODES) for row in np.random.default_rng(0).permutation(SAMPLES).tolist())


def theirs(shards: Path) -> Iterator[bytes]:
    """The same from webdataset, in stored order."""
    tars = [str(path) for path in sorted(shards.glob("*.tar"))]
    return (sample[CODES_EXTENSION] for sample in webdataset.WebDataset(tars, shardshuffle=False, empty_check=False))


def _from_copy(peer: str, copy: Path, shards: Path) -> Iterator[bytes]:
    del shards
    return streaming_formats.read(peer, copy)


def compare() -> list[Comparison | NotMeasured]:
    """What is read is counted and dropped, as a consumer would."""
    with tempfile.TemporaryDirectory() as folder:
        shards = make_shards(Path(folder) / "shards")
        stored = list(theirs(shards))
        assert list(ours(shards)) == stored
        assert sorted(ours_shuffled(shards)) == sorted(stored)
        ways = {"ours": ours, "ours, random order": ours_shuffled, "webdataset": theirs}
        for peer in streaming_formats.present():
            copy = Path(folder) / peer
            streaming_formats.write(peer, stored, copy)
            ways[peer] = partial(_from_copy, peer, copy)
            assert list(ways[peer](shards)) == stored, f"{peer} reads other samples"
        found = interleaved(
            {name: Contender(lambda read=read: sum(map(len, read(shards)))) for name, read in ways.items()}, ROUNDS
        )
    size = f"{SAMPLES} samples of {SIDE * SIDE * LEVELS * 2 // 1024} KiB"
    theirs_name = "webdataset in stored order"
    return [
        Comparison(size, "webdataset", found["ours"], found["webdataset"], at_least=LEAST_RATIO),
        Comparison(f"{size}, random order", theirs_name, found["ours, random order"], found["webdataset"]),
        *(
            Comparison(size, peer, found["ours"], found[peer])
            if peer in found
            else NotMeasured(size, peer, streaming_formats.ADVICE)
            for peer in streaming_formats.MODULES
        ),
    ]

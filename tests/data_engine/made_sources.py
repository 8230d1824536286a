"""A source of given samples, and the build of one: what the tests of sources and builds share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from data_engine.build_config import BuildConfig, PlacedSource
from data_engine.build_records import build_records
from data_engine.index import ShardIndex
from data_engine.reader import ShardReader
from data_engine.sources.source import Source
from data_engine.stored_sample import StoredSample


@dataclass(frozen=True, kw_only=True)
class ListSource(Source):
    """Gives the samples it was made with, under keys of its own."""

    given: tuple[StoredSample, ...]

    def samples(self) -> Iterator[StoredSample]:
        for number, sample in enumerate(self.given, 1):
            yield replace(sample, key=self.sample(number, "").key, source=self.name)


def config_of(output: Path, *sources: Source, **settings) -> BuildConfig:
    placed = tuple(PlacedSource(source, "made") for source in sources)
    return BuildConfig(output, placed, **{"shard_bytes": 10**6, "val_fraction": 0.0, **settings})


def built(output: Path, *sources: Source, **settings) -> ShardReader:
    """A reader of the shards of these sources."""
    build_records(config_of(output, *sources, **settings))
    return ShardReader(ShardIndex.open(output))

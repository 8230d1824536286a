"""The cheap form of tests/benchmarks/worker_memory.py: a full garbage collection stands for a long epoch."""

from __future__ import annotations

import gc
import mmap

import pytest

from data_engine.loader import LoaderSettings, make_loader
from tests.benchmarks import worker_memory
from tests.benchmarks.worker_memory import Watched, make_index, measure, private_mib


class Collecting(Watched):
    """Collects garbage before every look."""

    def __call__(self, sample, random):
        if self.calls % self.every == 0:
            gc.collect()
        return super().__call__(sample, random)


def test_a_worker_keeps_little_to_itself_and_does_not_grow(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_memory, "Watched", Collecting)
    memory = measure(make_index(tmp_path / "shards", 300_000), 8 * worker_memory.BATCH, looks=8)
    assert all(len(looks) >= 8 for looks in memory.workers.values())
    assert memory.most_above_empty < 40
    assert memory.growth < 6  # MiB; a copy of the index of 300,000 rows is 16


def test_private_memory_is_measured():
    before = private_mib()
    # Fresh pages: the allocator may have as much at hand from earlier tests.
    with mmap.mmap(-1, 32 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        assert 30 < private_mib() - before < 40


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_share_the_decoder(shard_folder, monkeypatch, workers):
    loaded = []
    monkeypatch.setattr("data_engine.loader.load_jpeg_decoder", lambda: loaded.append(True))
    make_loader(LoaderSettings(shard_folder(4), workers=workers), lambda sample, random: {})
    assert len(loaded) == workers

"""Private memory of loader workers over an epoch of an index with millions of samples, beside that of an empty worker.

    python -m tests.benchmarks.worker_memory --picture docs/pictures/worker_memory.png

The index is real in its size, its rows share a few small pictures. Linux only: it reads /proc/self/smaps_rollup.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from data_engine.index import write_index
from data_engine.loader import LoaderSettings, make_loader
from data_engine.records import Sample
from data_engine.shards import ShardWriter

PICTURES, SIDE, BATCH, WORKERS = 64, 16, 512, 2
SAMPLES, LOOKS = 5_000_000, 200
ROLLUP = Path("/proc/self/smaps_rollup")


@dataclass(frozen=True)
class Memory:
    """MiB of private memory: of an empty worker, and of each worker as (samples read by all, MiB), in time order."""

    empty: float
    workers: dict[int, list[tuple[int, float]]]

    @property
    def most_above_empty(self) -> float:
        return max(mib for looks in self.workers.values() for _, mib in looks) - self.empty

    @property
    def growth(self) -> float:
        """The last quarter of the epoch against the second one, means, of the worker where it is most."""
        return max(_mean(looks, 0.75, 1.0) - _mean(looks, 0.25, 0.5) for looks in self.workers.values())


def _mean(looks: list[tuple[int, float]], start: float, stop: float) -> float:
    return float(np.mean([mib for _, mib in looks[int(len(looks) * start) : int(len(looks) * stop)]]))


def private_mib() -> float:
    """Memory of this process that no other one shares (USS), in MiB."""
    lines = ROLLUP.read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def make_index(folder: Path, samples: int) -> Path:
    """A shard folder whose index has `samples` rows over PICTURES stored pictures."""
    folder.mkdir()
    random = np.random.default_rng(0)
    with ShardWriter(folder, 10**9) as writer:
        places = [writer.add(f"picture-{number:03}", _members(random)) for number in range(PICTURES)]
    rows = np.arange(samples) % PICTURES
    columns = {
        "shard": np.zeros(samples, np.int32),
        "offset": np.array([[member.offset for member in members] for members in places], np.int64)[rows],
        "size": np.array([[member.size for member in members] for members in places], np.int64)[rows],
        "key_hash": random.integers(0, 2**63, samples).astype(np.uint64),
        "split": np.zeros(samples, np.uint8),
        "width": np.full(samples, SIDE, np.int32),
        "height": np.full(samples, SIDE, np.int32),
    }
    description = {"kind": "images", "source": "made", "fields": ["image", "json"], "splits": {"names": ["train"]}}
    write_index(folder, description, [replace(writer.shards[0], samples=samples)], columns)
    return folder


def _members(random: np.random.Generator) -> dict[str, bytes]:
    stream = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(stream, "JPEG")
    return {"jpg": stream.getvalue(), "json": b'{"schema_version": 1}'}


class Watched:
    """The transform: hands the picture on, and every now and then what the worker's memory is."""

    def __init__(self, every: int) -> None:
        self.every, self.calls = every, 0

    def __call__(self, sample: Sample, random: np.random.Generator) -> dict[str, Any]:
        del random
        look = self.calls % self.every == 0
        self.calls += 1
        return {"image": sample.fields["image"], "private": private_mib() if look else -1.0}


class Nothing(Dataset[float]):
    """What an empty worker works on."""

    def __len__(self) -> int:
        return WORKERS

    def __getitem__(self, item: int) -> float:
        return private_mib()


def batches_with_looks(folder: Path, samples: int, looks: int) -> Iterator[tuple[int, int, float]]:
    """(worker, samples read by all, MiB) at each look, over `samples` samples of the sequence."""
    settings = LoaderSettings(folder, "all", BATCH, workers=WORKERS)
    loader = make_loader(settings, Watched(max(1, samples // WORKERS // looks)), samples // BATCH)
    for number, batch in enumerate(loader):
        for mib in batch["private"][batch["private"] >= 0].tolist():
            yield number % WORKERS, (number + 1) * BATCH, mib


def measure(folder: Path, samples: int, looks: int = LOOKS) -> Memory:
    """Reads `samples` samples with WORKERS workers."""
    empty = max(float(mib) for mib in DataLoader(Nothing(), batch_size=1, num_workers=WORKERS))
    found: dict[int, list[tuple[int, float]]] = {worker: [] for worker in range(WORKERS)}
    for worker, read, mib in batches_with_looks(folder, samples, looks):
        found[worker].append((read, mib))
    return Memory(empty, found)


def draw(memory: Memory, samples: int, picture: Path) -> None:
    """One line a worker, above the level of an empty one."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    for worker, looks in memory.workers.items():
        axes.plot(*np.array(looks).T * [[1e-6], [1]], label=f"worker {worker + 1}")
    axes.axhline(memory.empty, color="grey", linestyle="--", label="empty worker")
    axes.axhline(memory.empty + 100, color="firebrick", linestyle=":", label="limit: 100 MiB above")
    axes.set(xlabel="samples read, million", ylabel="private memory, MiB", ylim=(0, None))
    axes.set_title(f"One epoch over an index of {samples:,} samples", loc="left", fontsize=10)
    axes.legend(frameon=False, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.worker_memory", description=__doc__)
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"rows of the index, all read (default {SAMPLES})")
    parser.add_argument("--picture", type=Path, help="PNG to draw")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        memory = measure(make_index(Path(folder) / "shards", given.samples), given.samples)
    if given.picture:
        draw(memory, given.samples, given.picture)
    figures = {"empty": memory.empty, "most_above_empty": memory.most_above_empty, "growth": memory.growth}
    print(json.dumps({"samples": given.samples, **{name: round(mib, 2) for name, mib in figures.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

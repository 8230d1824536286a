"""Batches of the virtual global sequence, through torch's DataLoader.

The main process of each rank decides which positions make a batch and hands (position, epoch, row) to the workers; they
only read, decode and transform. So the bytes of the global batch at a step are the same for any ranks and workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data_engine.decode import DecodeRules
from data_engine.index import ShardIndex
from data_engine.ledger import Ledger, rank_window, sample_generator
from data_engine.reader import ShardReader
from data_engine.records import RESERVED_BATCH_KEYS, Sample
from data_engine.skips import Skips, next_positions
from data_engine.worker_signals import leave_signals_to_the_parent
from mmzoo.errors import InputError

Transform = Callable[[Sample, np.random.Generator], dict[str, Any]]
Batch = dict[str, Any]
Slot = tuple[int, int, int]  # position, epoch, row


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """Which samples, in which order, on which rank.

    `index`: the shard folder. `global_batch`: samples a step over all ranks; it must divide by `ranks`. `passes`: how
    often to read the rows, then end with a short batch (None: for ever, or `steps`). `start_position`: of the whole
    sequence, all ranks together. `skips`: positions to leave out. `cache_mb`: MiB of decoded images kept on this rank, shared out among its workers.
    `background`: see DecodeRules. `pin_memory`: for copies to a GPU.
    """

    index: Path | str
    split: str = "train"
    global_batch: int = 8
    seed: int = 0
    shuffle: bool = True
    passes: int | None = None
    workers: int = 0
    rank: int = 0
    ranks: int = 1
    start_position: int = 0
    skips: Skips = ()
    cache_mb: int = 0
    background: Literal["white"] | None = None
    pin_memory: bool = False


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What one rank reads for one step. `filler`: a slot that lends its shapes when the rank's share is empty."""

    slots: list[Slot]
    filler: Slot


@dataclass(frozen=True, slots=True)
class BrokenBatch:
    """A batch that could not be made: the line for the user travels from the worker to the main process."""

    reason: str


class PlannedBatches:
    """The batch sampler: one BatchPlan a step. Every rank gets the same number of them."""

    def __init__(self, ledger: Ledger, settings: LoaderSettings, steps: int | None) -> None:
        self.ledger = ledger
        self.settings = settings
        self.stop = _stop_position(settings, len(ledger), steps)

    def __len__(self) -> int:
        if self.stop is None:
            raise TypeError("this loader is endless: give steps or passes")
        return math.ceil((self.stop - self.settings.start_position) / self.settings.global_batch)

    def __iter__(self) -> Iterator[BatchPlan]:
        settings = self.settings
        start = settings.start_position
        while self.stop is None or start < self.stop:
            size = settings.global_batch if self.stop is None else min(settings.global_batch, self.stop - start)
            positions = next_positions(start, size, settings.skips)
            own = positions[slice(*rank_window(0, size, settings.rank, settings.ranks))]
            slots = [(position, *self.ledger.locate(position)) for position in own]
            yield BatchPlan(slots, (positions[0], *self.ledger.locate(positions[0])))
            start = positions[-1] + 1


class PositionDataset(Dataset[Batch]):
    """Makes the sample at a position: reads, decodes, transforms. Holds no list of samples, only mapped columns."""

    def __init__(self, reader: ShardReader, transform: Transform, seed: int) -> None:
        self.reader = reader
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return self.reader.index.count

    def __getitem__(self, slot: Slot) -> Batch:
        """The transformed sample at (position, epoch, row), with its id: the one place where a sample can fail."""
        position, epoch, row = slot
        sample = self.reader.sample(row)
        try:
            values = self.transform(sample, sample_generator(self.seed, epoch, position))
        except InputError as mistake:
            raise InputError(f"{self.reader.location(row)}: {mistake}") from None
        except Exception as fault:
            fault.add_note(f"in the transform of {self.reader.location(row)}")
            raise
        taken = set(RESERVED_BATCH_KEYS).intersection(values)
        if taken:
            raise ValueError(f"the transform returned {min(taken)!r}, a key that the loader fills itself")
        return {**values, "sample_ids": f"{sample.source}/{sample.key}@{position}", "positions": position}

    def __getitems__(self, plan: BatchPlan) -> Batch | BrokenBatch:
        """A whole batch of this rank (DataLoader hands the sampler's item over as it is)."""
        try:
            if plan.slots:
                return collate([self[slot] for slot in plan.slots])
            return {key: values[:0] for key, values in collate([self[plan.filler]]).items()}
        except InputError as mistake:
            return BrokenBatch(str(mistake))


class ShardLoader(DataLoader[Batch]):
    """A DataLoader that turns a BrokenBatch back into the InputError for the user, without the noise of workers."""

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        for batch in super().__iter__():
            if isinstance(batch, BrokenBatch):
                raise InputError(batch.reason)
            yield batch


def make_loader(settings: LoaderSettings, transform: Transform, steps: int | None = None) -> DataLoader[Batch]:
    """The loader of one rank; its batches are described in records.py.

    `transform(sample, random)` gets a Sample and a generator that depends on (seed, epoch, position) only, and returns
    arrays, tensors, numbers or strings. `steps`: number of batches; with neither steps nor passes the loader is
    endless. A batch holds global_batch / ranks samples; only the last one of `passes` may be shorter, even empty.
    InputError: no such split, an empty one, a global batch that does not divide by the ranks, a sample that fails.
    """
    _check(settings, steps)
    index = ShardIndex.open(settings.index)
    ledger = Ledger(index.split_rows(settings.split), settings.seed, settings.shuffle)
    cache_bytes = settings.cache_mb * 2**20 // max(1, settings.workers)
    reader = ShardReader(index, DecodeRules(background=settings.background, fast=True), cache_bytes)
    return ShardLoader(
        PositionDataset(reader, transform, settings.seed),
        batch_sampler=PlannedBatches(ledger, settings, steps),  # pyright: ignore[reportArgumentType]
        collate_fn=_already_collated,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        pin_memory=settings.pin_memory,
        worker_init_fn=leave_signals_to_the_parent,
        # Otherwise each new iterator would draw its workers' seed from the global generator, and so move it.
        generator=torch.Generator().manual_seed(settings.seed),
    )


def collate(samples: list[Batch]) -> Batch:
    """Stacks the values of each key on dimension 0: arrays, tensors and numbers to tensors, strings to lists.

    Numbers become int64, float64 or bool. ValueError, naming the key: samples with other keys or shapes.
    """
    first = samples[0]
    for sample in samples:
        if sample.keys() != first.keys():
            odd = min(sample.keys() ^ first.keys())
            raise ValueError(f"{odd!r} is not in both {first['sample_ids']} and {sample['sample_ids']}")
    return {key: _stack(key, [sample[key] for sample in samples]) for key in first}


def _stack(key: str, values: list[Any]) -> torch.Tensor | list[str]:
    if isinstance(values[0], str):
        return values
    shapes = {tuple(np.shape(value)) for value in values}
    if len(shapes) > 1:
        raise ValueError(f"the transform made {key!r} in several shapes, which do not stack: {sorted(shapes)}")
    if isinstance(values[0], torch.Tensor):
        return torch.stack(values)
    return torch.from_numpy(np.stack(values))


def _already_collated(batch: Any) -> Any:
    return batch


def _stop_position(settings: LoaderSettings, rows: int, steps: int | None) -> int | None:
    if steps is not None:
        return settings.start_position + steps * settings.global_batch
    return None if settings.passes is None else max(settings.start_position, settings.passes * rows)


def _check(settings: LoaderSettings, steps: int | None) -> None:
    for name in ("global_batch", "ranks"):
        if getattr(settings, name) < 1:
            raise InputError(f"{name} must be at least 1, not {getattr(settings, name)}")
    for name in ("seed", "start_position", "workers", "cache_mb"):
        if getattr(settings, name) < 0:
            raise InputError(f"{name} must not be negative: {getattr(settings, name)}")
    if settings.global_batch % settings.ranks:
        raise InputError(
            f"global_batch {settings.global_batch} does not divide by {settings.ranks} ranks. "
            f"Try {math.ceil(settings.global_batch / settings.ranks) * settings.ranks}"
        )
    if not 0 <= settings.rank < settings.ranks:
        raise InputError(f"rank {settings.rank} is not one of 0 to {settings.ranks - 1}")
    if settings.passes is not None and steps is not None:
        raise InputError("passes and steps both say when the loader ends. Give one")
    if settings.passes is not None and settings.passes < 1:
        raise InputError(f"passes must be at least 1, not {settings.passes}")

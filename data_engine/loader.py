"""Batches of the virtual global sequence, through torch's DataLoader.

The main process of each rank decides which positions make a batch and hands (position, epoch, row) to the workers; they
only read, decode and transform. So the bytes of the global batch at a step are the same for any ranks and workers.
"""

from __future__ import annotations

import gc
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data_engine.batch_plan import (
    BatchPlan,
    LoaderSettings,
    PackPlan,
    PlannedBatches,
    Slot,
    check_settings,
    ledger_of,
)
from data_engine.broken_samples import BrokenSampleError
from data_engine.decode import DecodeRules, load_jpeg_decoder
from data_engine.ledger import SampleRandomness
from data_engine.quarantine import BrokenSample, Quarantine
from data_engine.reader import ShardReader
from data_engine.records import RESERVED_BATCH_KEYS, Sample
from data_engine.remote import open_index
from data_engine.sample_source import SampleReader
from data_engine.worker_signals import leave_signals_to_the_parent
from mmzoo.errors import InputError

__all__ = ["BatchPlan", "LoaderSettings", "PlannedBatches", "PositionDataset", "collate", "make_loader"]

Transform = Callable[[Sample, np.random.Generator], dict[str, Any]]
Batch = dict[str, Any]
_RESERVED = frozenset(RESERVED_BATCH_KEYS)
#: What the loader adds to a batch of packs, see `packed`.
PACK_KEYS = ("pack_starts", "lengths", "visual_tokens", "cu_lengths")
#: What Python's numbers become in a batch.
NUMBERS = {int: np.dtype(np.int64), float: np.dtype(np.float64), bool: np.dtype(np.bool_)}
#: How many rows an empty share tries, to find a sound one that lends its shapes.
SHAPE_TRIES = 1000


class MadeBatch(NamedTuple):
    """What a worker hands to the main process: a batch of the sound samples, and what is broken. `mistake`: instead of
    a batch, the line for the user when none can be made.
    """

    batch: Batch | None
    broken: list[BrokenSample]
    mistake: str | None = None


class PackNote(NamedTuple):
    """What a packed sample is told: its place in the pack, and the tokens that were planned for it."""

    member: int
    planned: dict[str, Any]


def pack_note(packs: PackPlan | None, number: int) -> PackNote | None:
    """The note of a slot; None where nothing is packed."""
    if packs is None:
        return None
    member = number - packs.starts[bisect_right(packs.starts, number) - 1]
    planned = {"text_tokens": packs.text[number], "visual_tokens": packs.visual[number], "policy": packs.policy[number]}
    return PackNote(member, planned)


class PositionDataset(Dataset[Batch]):
    """Makes the sample at a position: reads, decodes, transforms. Holds no list of samples, only mapped columns."""

    def __init__(self, reader: SampleReader, transform: Transform, settings: LoaderSettings) -> None:
        self.reader = reader
        self.transform = transform
        self.randomness = SampleRandomness(settings.seed)
        self.split = settings.split

    def __len__(self) -> int:
        return self.reader.index.count

    def __getitem__(self, slot: Slot) -> Batch:
        """The transformed sample at (position, epoch, row), with its id."""
        return self._sample(slot, None)

    def __getitems__(self, plan: BatchPlan) -> MadeBatch:
        """A whole batch of this rank (DataLoader hands the sampler's item over as it is)."""
        samples: list[Batch] = []
        sound: list[int] = []
        broken: list[BrokenSample] = []
        try:
            for number, (slot, place) in enumerate(zip(plan.slots, plan.places, strict=True)):
                try:
                    samples.append(self._sample(slot, place, pack_note(plan.packs, number)))
                    sound.append(number)
                except BrokenSampleError as error:
                    broken.append(BrokenSample(error.fault, self.split, epoch=slot[1], position=slot[0]))
            if plan.packs is not None:
                return MadeBatch(self._packed(samples, plan, sound), broken)
            return MadeBatch(collate(samples) if samples else self._empty_batch(plan.first), broken)
        except InputError as mistake:
            return MadeBatch(None, broken, str(mistake))

    def _packed(self, samples: list[Batch], plan: BatchPlan, sound: list[int]) -> Batch:
        assert plan.packs is not None
        if samples:
            return packed(samples, plan.packs, sound)
        lender = self._lender(plan.first, plan.packs.lender)
        batch = packed([lender], PackPlan([0, 1], [0], [0], [""], {}), [0])
        counts = {
            "pack_starts": torch.zeros(len(plan.packs.starts), dtype=torch.int64),
            "cu_lengths": torch.zeros(1, dtype=torch.int64),
        }
        return {**{key: values[:0] for key, values in batch.items()}, **counts}

    def _sample(self, slot: Slot, place: Any, note: PackNote | None = None) -> Batch:
        """BrokenSampleError: the sample's own bytes, or the transform refuses it. All else that fails ends the run."""
        position, epoch, row = slot
        sample = self.reader.sample(row, place)
        if note is not None:
            sample = Sample(sample.key, sample.source, sample.fields, {**sample.meta, "planned": note.planned})
        try:
            values = self.transform(sample, self.randomness.at(epoch, position, note.member if note else 0))
        except InputError as mistake:
            raise self.reader.broken(row, self.reader.index.fields[0], str(mistake)) from None
        except Exception as fault:
            fault.add_note(f"in the transform of {self.reader.location(row)}")
            raise
        if not _RESERVED.isdisjoint(values):
            taken = min(_RESERVED.intersection(values))
            raise ValueError(f"the transform returned {taken!r}, a key that the loader fills itself")
        return {**values, "sample_ids": f"{sample.source}/{sample.key}@{position}", "positions": position}

    def _empty_batch(self, first: Slot) -> Batch:
        """Keys, types and shapes of a batch of none, from the first sound row at or after that of the slot."""
        return {key: values[:0] for key, values in collate([self._lender(first, None)]).items()}

    def _lender(self, first: Slot, planned: dict[str, Any] | None) -> Batch:
        position, epoch, row = first
        rows = len(self)
        note = None if planned is None else PackNote(0, planned)
        for step in range(min(rows, SHAPE_TRIES)):
            try:
                return self._sample((position, epoch, (row + step) % rows), None, note)
            except BrokenSampleError:
                continue
        raise InputError(
            f"no sound sample among the {min(rows, SHAPE_TRIES)} rows from {self.reader.location(row)} on. "
            f"{self.reader.index.remedy}"
        )


class ShardLoader(DataLoader[Batch]):
    """A DataLoader of MadeBatches that yields the batches and keeps the quarantine, in the main process."""

    quarantine: Quarantine

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        for batch, broken, mistake in super().__iter__():
            self.quarantine.add(broken)
            if mistake is not None:
                raise InputError(mistake)
            yield batch
            del batch  # else the last one lies in memory, and in the processor's cache, while the next one is made


def open_shards(settings: LoaderSettings) -> SampleReader:
    """The reader of the shard folder that the settings name."""
    cache_bytes = settings.cache_mb * 2**20 // max(1, settings.workers)
    rules = DecodeRules(background=settings.background, fast=True)
    return ShardReader(open_index(settings.index, settings.remote), rules, cache_bytes)


def make_loader(
    settings: LoaderSettings, transform: Transform, steps: int | None = None, reader: SampleReader | None = None
) -> DataLoader[Batch]:
    """The loader of one rank; its batches are described in records.py.

    `transform(sample, random)` gets a Sample and a generator that depends on (seed, epoch, position) only and is good
    for this call. It returns arrays, tensors, numbers or strings, and raises InputError to refuse the sample. `steps`:
    number of batches; with neither steps nor passes the loader is endless. `reader`: where samples come from (default:
    the shards of the settings). A batch holds global_batch / ranks samples.
    It is shorter, even empty, where samples are broken, and at the end of `passes`.
    InputError: no such split, an empty one, a global batch that does not divide by the ranks, the error budget spent.
    """
    check_settings(settings, steps)
    reader = reader or open_shards(settings)
    index = reader.index
    loader = ShardLoader(
        PositionDataset(reader, transform, settings),
        batch_sampler=PlannedBatches(ledger_of(settings, index), index, settings, steps),  # pyright: ignore[reportArgumentType]
        collate_fn=_already_collated,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        worker_init_fn=_start_worker,
        pin_memory=settings.pin_memory,
        # Otherwise each new iterator would draw its workers' seed from the global generator, and so move it.
        generator=torch.Generator().manual_seed(settings.seed),
    )
    if settings.workers:
        load_jpeg_decoder()  # here, so that workers share it: loaded by each one alone it takes 150 MB of each
    loader.quarantine = Quarantine(settings.budget, index.count, settings.quarantine, index.remedy)
    return loader


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


def packed(samples: list[Batch], packs: PackPlan, sound: list[int]) -> Batch:
    """A batch of S sound samples in B packs. What the transform returned: a list of S, numbers as a tensor (S,).

    `sound`: the slots of the samples. Added: `pack_starts` int64 (B + 1,), pack b holds the samples from pack_starts[b]
    to pack_starts[b + 1] - 1; `lengths`, `visual_tokens` int64 (S,), as planned; `cu_lengths` int64 (S + 1,).
    """
    first = samples[0]
    for sample in samples:
        if sample.keys() != first.keys():
            odd = min(sample.keys() ^ first.keys())
            raise ValueError(f"{odd!r} is not in both {first['sample_ids']} and {sample['sample_ids']}")
    taken = set(PACK_KEYS).intersection(first)
    if taken:
        raise ValueError(f"the transform returned {min(taken)!r}, a key that the loader fills itself")
    batch: Batch = {key: _listed([sample[key] for sample in samples]) for key in first}
    lengths = torch.tensor([packs.text[number] + packs.visual[number] for number in sound], dtype=torch.int64)
    return {
        **batch,
        "pack_starts": torch.tensor([bisect_left(sound, start) for start in packs.starts], dtype=torch.int64),
        "lengths": lengths,
        "visual_tokens": torch.tensor([packs.visual[number] for number in sound], dtype=torch.int64),
        "cu_lengths": torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
    }


def _listed(values: list[Any]) -> Any:
    if isinstance(values[0], str):
        return values
    if isinstance(values[0], int | float | bool | np.generic):
        return torch.from_numpy(np.stack(values))
    return [value if isinstance(value, torch.Tensor) else torch.from_numpy(np.asarray(value)) for value in values]


def _stack(key: str, values: list[Any]) -> torch.Tensor | list[str]:
    if isinstance(values[0], str):
        return values
    numbers = _numbers(values)
    if numbers is not None:
        return torch.from_numpy(numbers)
    # Asking an array itself, and for its shape only: np.shape takes as long for all as copying a small array.
    shapes = {tuple(value.shape if hasattr(value, "shape") else np.shape(value)) for value in values}
    if len(shapes) > 1:
        raise ValueError(f"the transform made {key!r} in several shapes, which do not stack: {sorted(shapes)}")
    if isinstance(values[0], torch.Tensor):
        return torch.stack(values)
    return torch.from_numpy(np.stack(values))


def _numbers(values: list[Any]) -> np.ndarray | None:
    """Plain numbers of one type as `np.stack` has them, which asks each for its shape; None for anything else."""
    kinds = set(map(type, values))
    dtype = NUMBERS.get(kinds.pop()) if len(kinds) == 1 else None
    made = None if dtype is None else np.array(values)
    return made if made is not None and made.dtype == dtype else None  # else: numbers of more than 64 bits


def _start_worker(number: int) -> None:  # noqa: ARG001 - DataLoader hands it over
    """Leaves stops to the main process, and keeps shared what the worker inherits.

    The first full garbage collection would write to every object of that.
    """
    leave_signals_to_the_parent()
    gc.freeze()


def _already_collated(batch: Any) -> Any:
    return batch

"""Which positions make the batch of a step on a rank: pure arithmetic on the ledger, without torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data_engine.ledger import Ledger, rank_window
from data_engine.mixed_source import MixedIndex
from data_engine.over_long import POLICIES
from data_engine.pack_ledger import PackLedger
from data_engine.quarantine import ErrorBudget
from data_engine.remote import RemoteSettings
from data_engine.sample_source import SampleIndex
from data_engine.skips import Skips, advance, kept, next_positions
from mmzoo.errors import InputError

Slot = tuple[int, int, int]  # position, epoch, row


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """Which samples, in which order, on which rank.

    `index`: the shard folder, or the URL of one; `remote`: where what is fetched from there is kept. `global_batch`:
    samples a step over all ranks; it must divide by `ranks`. `passes`: how
    often to read the rows, then end with a short batch (None: for ever, or `steps`). `start_position`: of the whole
    sequence, all ranks together. `skips`: positions to leave out. `cache_mb`: MiB of decoded images kept on this rank,
    shared out among its workers. `background`: see DecodeRules. `pin_memory`: for copies to a GPU. `budget`: how many
    broken samples to leave out before giving up. `quarantine`: the file that lists them (None: no list).
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
    budget: ErrorBudget = field(default_factory=ErrorBudget)
    quarantine: Path | None = None
    remote: RemoteSettings = field(default_factory=RemoteSettings)


@dataclass(frozen=True, slots=True)
class PackPlan:
    """How the slots of a batch are packed: pack b holds the slots starts[b], ..., starts[b + 1] - 1.

    `text`, `visual`: tokens planned for each slot; `policy`: what was done because it was over-long, "" for nothing.
    `lender`: what a sample is told that lends its shapes to an empty share.
    """

    starts: list[int]
    text: list[int]
    visual: list[int]
    policy: list[str]
    lender: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What one rank reads for one step: slots, and where each one lies, so that workers need no index for it.

    `first`: the first slot of the global batch, from which an empty share looks for a sample that lends its shapes.
    `packs`: where samples are packed.
    """

    slots: list[Slot]
    places: Sequence[Any]
    first: Slot
    packs: PackPlan | None = None


def ledger_of(settings: LoaderSettings, index: SampleIndex) -> Ledger:
    """The sequence that these settings read. InputError: quotas that do not fit the global batch."""
    if isinstance(index, MixedIndex):
        return index.ledger(settings.split, settings.seed, settings.shuffle, settings.global_batch)
    return Ledger(index.split_rows(settings.split), settings.seed, settings.shuffle)


class PlannedBatches:
    """The batch sampler: one BatchPlan a step. Every rank gets the same number of them."""

    def __init__(self, ledger: Ledger, index: SampleIndex, settings: LoaderSettings, steps: int | None) -> None:
        self.ledger = ledger
        self.index = index
        self.settings = settings
        self.stop = _stop_position(settings, ledger, steps)

    def __len__(self) -> int:
        if self.stop is None:
            raise TypeError("this loader is endless: give steps or passes")
        left = kept(self.settings.start_position, self.stop, self.settings.skips)
        return math.ceil(sum(stop - start for start, stop in left) / self.settings.global_batch)

    def __iter__(self) -> Iterator[BatchPlan]:
        settings = self.settings
        start = settings.start_position
        while self.stop is None or start < self.stop:
            positions = next_positions(start, settings.global_batch, settings.skips)
            if self.stop is not None and positions[-1] >= self.stop:
                positions = [position for position in positions if position < self.stop]
                if not positions:
                    return
            own = positions[slice(*rank_window(0, len(positions), settings.rank, settings.ranks))]
            yield self._plan(own, (positions[0], *self.ledger.locate(positions[0])))
            start = positions[-1] + 1

    def _plan(self, positions: Sequence[int], first: Slot) -> BatchPlan:
        if not isinstance(self.ledger, PackLedger):
            slots = _slots(self.ledger, positions)
            return BatchPlan(slots, self.index.places([row for _, _, row in slots]), first)
        slots, starts = [], [0]
        for position in positions:
            epoch, rows = self.ledger.rows_at(position)
            slots += [(position, epoch, row) for row in rows]
            starts.append(len(slots))
        rows = [row for _, _, row in slots]
        return BatchPlan(slots, self.index.places(rows), first, _pack_plan(self.ledger, starts, rows, first[2]))


def _slots(ledger: Ledger, positions: Sequence[int]) -> list[Slot]:
    """The slots of ascending positions, in one piece where none is skipped between them."""
    if positions and positions[-1] - positions[0] == len(positions) - 1:
        return ledger.window(positions[0], positions[-1] + 1)
    return [(position, *ledger.locate(position)) for position in positions]


def _pack_plan(ledger: PackLedger, starts: list[int], rows: list[int], first: int) -> PackPlan:
    plan = ledger.plan
    lender = {"text_tokens": int(plan.text[first]), "visual_tokens": int(plan.visual[first]), "policy": ""}
    policies = [POLICIES[code] if code >= 0 else "" for code in plan.policy[rows].tolist()]
    return PackPlan(starts, plan.text[rows].tolist(), plan.visual[rows].tolist(), policies, lender)


def check_settings(settings: LoaderSettings, steps: int | None) -> None:
    """InputError when the settings contradict themselves."""
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


def _stop_position(settings: LoaderSettings, ledger: Ledger, steps: int | None) -> int | None:
    if steps is not None:
        return advance(settings.start_position, steps * settings.global_batch, settings.skips)
    return None if settings.passes is None else max(settings.start_position, ledger.epoch_start(settings.passes))

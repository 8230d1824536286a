"""Which positions of the virtual sequence an optimiser step consumed: arithmetic, nothing is stored per step.

A run is a list of stretches. A new one begins where something that the arithmetic depends on was changed at a resume:
the batch, the accumulation, the length of an epoch, the ranks, the data, or a range of steps to skip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from data_engine.skips import Skips, advance, merged, next_positions
from mmzoo.errors import InputError


@dataclass(frozen=True, slots=True)
class Stretch:
    """The steps after `step` updates, as long as nothing changes.

    `position`: where their data begins. `batch_in_epoch`: batches of the training epoch that were consumed before.
    `global_batch`: samples of one batch over all ranks; `accumulate` batches make a step, fewer at an epoch's end.
    `epoch_batches`: batches of a training epoch. `seed`, `split`, `index`, `identity`: the sequence, without `skips`;
    `order`: of a mixture, see data_order.py.
    """

    step: int
    position: int
    batch_in_epoch: int
    global_batch: int
    accumulate: int
    epoch_batches: int
    ranks: int
    seed: int
    split: str
    index: str
    identity: str
    skips: Skips = ()
    order: str = ""

    def batches_of(self, step: int) -> tuple[int, int]:
        """(batches of this stretch before the update number `step`, batches of that update); `step` > self.step."""
        per_epoch = -(-self.epoch_batches // self.accumulate)
        left = max(0, self.epoch_batches - self.batch_in_epoch)
        updates_left = -(-left // self.accumulate)
        place = step - self.step - 1
        if place < updates_left:
            before = place * self.accumulate
            return before, min(self.accumulate, left - before)
        epoch, place = divmod(place - updates_left, per_epoch)
        inside = place * self.accumulate
        return left + epoch * self.epoch_batches + inside, min(self.accumulate, self.epoch_batches - inside)

    def positions_of(self, step: int) -> list[list[int]]:
        """The positions of each batch of the update number `step`."""
        before, count = self.batches_of(step)
        start = advance(self.position, before * self.global_batch, self.skips)
        batches = []
        for _ in range(count):
            positions = next_positions(start, self.global_batch, self.skips)
            batches.append(positions)
            start = positions[-1] + 1
        return batches

    def continues(self, earlier: Stretch) -> bool:
        """Whether this is what `earlier` does anyway from this step on, so that it need not be written down."""
        same = all(
            getattr(self, name) == getattr(earlier, name)
            for name in (
                "global_batch",
                "accumulate",
                "epoch_batches",
                "ranks",
                "seed",
                "split",
                "identity",
                "skips",
                "order",
            )
        )
        if not same or self.step < earlier.step:
            return False
        before, _ = earlier.batches_of(self.step + 1)
        at = advance(earlier.position, before * earlier.global_batch, earlier.skips)
        return at == self.position and (earlier.batch_in_epoch + before - self.batch_in_epoch) % self.epoch_batches == 0


def as_json(history: Sequence[Stretch]) -> list[dict[str, Any]]:
    """The stretches as JSON values."""
    return [asdict(stretch) for stretch in history]


def from_json(rows: Sequence[Mapping[str, Any]]) -> list[Stretch]:
    """The stretches back. InputError when the rows are not ours."""
    try:
        return [Stretch(**{**row, "skips": merged(row["skips"])}) for row in rows]
    except (TypeError, KeyError, ValueError) as fault:
        raise InputError(f"the record of data steps cannot be read ({fault}). Use the mmzoo that wrote it") from None


def continued(history: Sequence[Stretch], new: Stretch) -> list[Stretch]:
    """The history up to `new`, with `new` at its end unless nothing has changed."""
    kept = [stretch for stretch in history if stretch.step < new.step]
    return kept if kept and new.continues(kept[-1]) else [*kept, new]


def stretch_of(history: Sequence[Stretch], step: int) -> Stretch:
    """The stretch that the update number `step` (counted from 1) belongs to."""
    if step < 1:
        raise InputError(f"steps are counted from 1, not {step}")
    covering = [stretch for stretch in history if stretch.step < step]
    if not covering:
        first = history[0].step if history else 0
        raise InputError(f"what step {step} consumed is not recorded: the record begins after step {first}")
    return covering[-1]


def skip_range(history: Sequence[Stretch], first: int, last: int) -> tuple[int, int]:
    """The positions that steps `first` to `last` (both included) consume, as one range to skip."""
    return (
        stretch_of(history, first).positions_of(first)[0][0],
        stretch_of(history, last).positions_of(last)[-1][-1] + 1,
    )

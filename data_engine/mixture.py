"""A mixture: how many samples of each source an epoch holds. Exact integers, pure arithmetic.

A mixture is a tree. Its leaves are sources, its inner nodes mixtures again. The parts of a node are weighed in one way:

    epochs   how often each part is gone through in an epoch (`name*3`, `name%10`)
    weight   its share of the node's samples; with a temperature T, weight * size ** (1 / T)
    quota    its samples in every batch (only at the top)

Counts that are not whole are rounded by largest remainder, the earlier part first on a tie, so they always add up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from mmzoo.errors import InputError

How = Literal["epochs", "weight", "quota"]
MOST_SAMPLES = 2**33  #: of an epoch


@dataclass(frozen=True, slots=True)
class Part:
    """A source (`source`), or a mixture of `parts`, with its `amount` among its siblings.

    `how`: the way in which its own parts are weighed. `temperature`, `samples`: of a node whose parts have weights; its
    samples an epoch are otherwise as many as its parts hold.
    """

    name: str
    amount: Fraction = Fraction(1)
    source: str | None = None
    parts: tuple[Part, ...] = ()
    how: How = "epochs"
    temperature: Fraction | None = None
    samples: int | None = None

    def leaves(self) -> Iterator[Part]:
        """The sources below, in the order of writing."""
        if self.source is not None:
            yield self
        for part in self.parts:
            yield from part.leaves()


@dataclass(frozen=True, slots=True)
class Share:
    """What a source gives to one epoch.

    `rows`: rows of the source. `count`: samples drawn from it. `fixed`: every epoch draws the same rows (whole laps and
    one subset); otherwise each epoch goes on in the source's own order where the last one stopped. `part`: number of
    the top-level part it belongs to.
    """

    name: str
    source: str
    rows: int
    count: int
    fixed: bool
    part: int

    @property
    def laps(self) -> float:
        """How often an epoch goes through the source."""
        return self.count / self.rows


def largest_remainder(values: Sequence[Fraction], total: int) -> list[int]:
    """Whole numbers that add up to `total`, in proportion to `values`: rounded down, the rest to the largest fractions.

    Values that add up to within 1 of the total are taken as they are: a whole number among them stays.
    """
    whole = sum(values, Fraction(0))
    if abs(whole - total) >= 1:
        values = [value * total / whole for value in values]
    counts = [math.floor(value) for value in values]
    by_fraction = sorted(range(len(values)), key=lambda part: (counts[part] - values[part], part))
    for part in by_fraction[: total - sum(counts)]:
        counts[part] += 1
    return counts


def shares(root: Part, rows: Mapping[str, int]) -> list[Share]:
    """The share of each leaf. `rows`: how many rows each source has.

    InputError: a source without rows, one whose share rounds to none, or an epoch of more than MOST_SAMPLES.
    """
    for leaf in root.leaves():
        if rows[str(leaf.source)] == 0:
            raise InputError(
                f"mixture: source {leaf.source!r} has no sample in this split. Build it anew or take it out"
            )
    found = _of_quotas(root, rows) if root.how == "quota" else list(_spread(root, _size(root, rows), rows, True, None))
    total = sum(share.count for share in found)
    if total > MOST_SAMPLES:
        raise InputError(
            f"mixture: an epoch of {total:,} samples is more than can be put in order (16 bytes each). Give fewer "
            f"epochs or samples: training goes on into the next epoch by itself"
        )
    return found


def _of_quotas(root: Part, rows: Mapping[str, int]) -> list[Share]:
    batches = quota_batches(root, rows)
    counts = [int(part.amount) * batches for part in root.parts]
    parts = enumerate(zip(root.parts, counts, strict=True))
    return [share for number, (part, count) in parts for share in _spread(part, count, rows, False, number)]


def quota_batches(root: Part, rows: Mapping[str, int]) -> int:
    """Batches of an epoch under quotas: as many as the samples fill, at least one."""
    total = root.samples or sum(_size(part, rows) for part in root.parts)
    return max(1, total // sum(int(part.amount) for part in root.parts))


def _size(part: Part, rows: Mapping[str, int]) -> int:
    """Samples of one epoch of a part by itself."""
    if part.source is not None:
        return rows[part.source]
    if part.how == "epochs":
        return math.floor(sum(_values(part, rows), Fraction(1, 2)))
    return part.samples or sum(_size(child, rows) for child in part.parts)


def _values(node: Part, rows: Mapping[str, int]) -> list[Fraction]:
    """What the parts of a node weigh: samples where they have epochs, any unit otherwise."""
    sizes = [_size(part, rows) for part in node.parts]
    if node.how == "epochs":
        return [part.amount * size for part, size in zip(node.parts, sizes, strict=True)]
    if node.temperature is None:
        return [part.amount for part in node.parts]
    # Twelve digits: the last bits of a power may differ between machines, and ranks must agree.
    powers = [Fraction(f"{power:.12g}") for power in _powers(sizes, node.temperature)]
    return [part.amount * power for part, power in zip(node.parts, powers, strict=True)]


def _powers(sizes: Sequence[int], temperature: Fraction) -> list[float]:
    """size ** (1 / temperature), or, where a float cannot hold them, the same in units of the largest."""
    try:
        powers = [size ** (1 / float(temperature)) for size in sizes]
    except (OverflowError, ZeroDivisionError):
        powers = [math.inf]
    if max(powers) < math.inf:
        return powers
    exponent = float(min(1 / temperature, Fraction(10**9)))
    return [(size / max(sizes)) ** exponent for size in sizes]


def _spread(part: Part, count: int, rows: Mapping[str, int], fixed: bool, number: int | None) -> Iterator[Share]:
    """The leaves' shares of `count` samples of a part."""
    if part.source is not None:
        if count == 0:
            raise InputError(f"mixture: {part.name!r} gets no sample in an epoch. Give it more, or take it out")
        yield Share(part.name, part.source, rows[part.source], count, fixed, number or 0)
        return
    fixed = fixed and part.how == "epochs"
    for place, (child, of_child) in enumerate(
        zip(part.parts, largest_remainder(_values(part, rows), count), strict=True)
    ):
        yield from _spread(child, of_child, rows, fixed, place if number is None else number)

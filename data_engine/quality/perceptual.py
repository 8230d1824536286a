"""Pictures that look alike: a 64-bit hash of the low frequencies, and all pairs a few bits apart without comparing all.

The hash is the usual pHash: grey, 32 x 32 px, the 8 x 8 lowest frequencies of its cosine transform without the mean,
each above or below their median (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from PIL import Image

from data_engine.quality.groups import Pair

SIDE, KEPT = 32, 8
BITS = 64
FAINTEST = 1.0  # of the strongest frequency; a wave of one grey level has 16
#: Widths in bits of the parts that a hash is cut into; few and wide, so that chance agrees rarely in large sets.
PARTS = (22, 21, 21)
MAX_DISTANCE = 8


def perceptual_hash(image: np.ndarray) -> int | None:
    """64 bits of an image, uint8 (H, W, 3); None of one that shows nothing: all plain areas would look alike."""
    from scipy.fft import dctn

    grey = Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    low = np.asarray(dctn(np.asarray(grey, np.float64), norm="ortho"))[:KEPT, :KEPT].ravel()
    low[0] = 0.0  # the mean brightness, which says nothing of what is seen
    if np.abs(low).max() < FAINTEST:
        return None
    bits = low > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def distance(one: int, two: int) -> int:
    """How many of the 64 bits differ."""
    return (one ^ two).bit_count()


def near_pairs(hashes: np.ndarray, others: np.ndarray, limit: int) -> list[Pair]:
    """All (row of `hashes`, row of `others`), both uint64, whose hashes differ in at most `limit` bits; sorted.

    Whatever differs in so few bits differs in at most limit // 3 of one of three parts (pigeonhole), so only rows that
    agree so far in a part are compared: for 10**6 random hashes 3 * 10**8 candidates, not 5 * 10**11. Exact; checked
    against `near_pairs_reference`.
    """
    if not 0 <= limit <= MAX_DISTANCE:
        raise ValueError(f"the distance must be 0 to {MAX_DISTANCE}, not {limit}")
    found: set[Pair] = set()
    for shift, width in _parts():
        mask = np.uint64((1 << width) - 1)
        mine, theirs = (hashes >> shift) & mask, (others >> shift) & mask
        order = np.argsort(theirs, kind="stable")
        ranked = theirs[order]
        for flipped in _flips(width, limit // len(PARTS)):
            wanted = mine ^ flipped
            starts, stops = np.searchsorted(ranked, wanted, "left"), np.searchsorted(ranked, wanted, "right")
            found.update(_close(hashes, others, order, starts, stops, limit))
    return sorted(found)


def near_pairs_reference(hashes: np.ndarray, others: np.ndarray, limit: int) -> list[Pair]:
    """The same by comparing everything with everything."""
    every = itertools.product(enumerate(hashes.tolist()), enumerate(others.tolist()))
    return [(row, other) for (row, one), (other, two) in every if distance(one, two) <= limit]


def near_pairs_within(hashes: np.ndarray, limit: int) -> list[Pair]:
    """All pairs of different rows of one set, the lower row first."""
    return [(one, two) for one, two in near_pairs(hashes, hashes, limit) if one < two]


def _parts() -> Iterator[tuple[np.uint64, int]]:
    shift = 0
    for width in PARTS:
        yield np.uint64(shift), width
        shift += width


def _flips(width: int, limit: int) -> Iterator[np.uint64]:
    for count in range(limit + 1):
        for places in itertools.combinations(range(width), count):
            yield np.uint64(sum(1 << place for place in places))


def _close(
    hashes: np.ndarray, others: np.ndarray, order: np.ndarray, starts: np.ndarray, stops: np.ndarray, limit: int
) -> list[Pair]:
    counts = stops - starts
    rows = np.repeat(np.arange(len(hashes)), counts)
    if not len(rows):
        return []
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    candidates = order[np.repeat(starts, counts) + within]
    near = np.bitwise_count(hashes[rows] ^ others[candidates]) <= limit
    return list(zip(rows[near].tolist(), candidates[near].tolist(), strict=True))

"""The checks by name; each says which rows to remove and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_engine.quality.groups import equal_groups, joined_groups
from data_engine.quality.perceptual import distance, near_pairs, near_pairs_within
from data_engine.quality.survey import Surveyed, looks
from data_engine.quality.texts import similar_texts, word_runs
from mmzoo.errors import InputError

RUN = 13  # words; the usual length of decontamination (Brown et al. 2020, appendix C)


@dataclass(frozen=True, slots=True)
class Limits:
    """Where each check begins. `look_distance`: bits of 64, 0 to 8; `text_overlap`: Jaccard of 5-character runs;
    `eval_overlap`: share of an evaluation text's runs of 13 words that a sample repeats; sides in px, `max_aspect`
    longer over shorter side, text lengths in characters (None: no such filter).
    """

    look_distance: int = 6
    text_overlap: float = 0.7
    eval_overlap: float = 0.7
    min_side: int | None = None
    max_aspect: float | None = None
    min_text: int | None = None
    max_text: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.look_distance <= 8:
            raise InputError(f"--look-distance must be 0 to 8 bits, not {self.look_distance}")
        for name, value in (("--text-overlap", self.text_overlap), ("--eval-overlap", self.eval_overlap)):
            if not 0 < value <= 1:
                raise InputError(f"{name} must be above 0 and at most 1, not {value}")


@dataclass(frozen=True, slots=True)
class Removal:
    """A row to leave out, by which check, and what it repeats or why."""

    row: int
    check: str
    why: str


def duplicates(samples: Sequence[Surveyed], limits: Limits) -> Iterator[Removal]:
    """Copies: of each group the first row stays. A row is named by the strictest check that finds it."""
    listed = list(samples)
    alike = [pair for pair in _alike(listed, limits.look_distance) if _one_sample(listed, pair, limits)]
    found = (
        ("same file", equal_groups([_with_text(sample, sample.file_hash) for sample in listed])),
        ("same pixels", equal_groups([_with_text(sample, sample.pixel_hash) for sample in listed])),
        (
            "same text",
            equal_groups([sample.text if not sample.file_hash and sample.text else None for sample in listed]),
        ),
        ("similar picture", joined_groups(alike)),
        ("similar text", joined_groups(_picture_free(listed, limits))),
    )
    named: set[int] = set()
    for check, groups in found:
        for first, *others in groups:
            for row in others:
                if row not in named and not _relabelled(listed[first], listed[row]):
                    named.add(row)
                    yield Removal(row, check, f"as {listed[first].key}")


def contamination(
    samples: Sequence[Surveyed], name: str, held: Sequence[Surveyed], limits: Limits
) -> Iterator[Removal]:
    """Samples that an evaluation set holds too: a picture that looks alike, or the words."""
    rows, hashes = looks(list(samples))
    eval_rows, eval_hashes = looks(list(held))
    for one, two in near_pairs(hashes, eval_hashes, limits.look_distance):
        yield Removal(int(rows[one]), "picture of an evaluation set", f"as {held[int(eval_rows[two])].key} of {name}")
    where: dict[str, list[int]] = {}
    runs = [word_runs(sample.text, RUN) for sample in held]
    for row, mine in enumerate(runs):
        for run in mine:
            where.setdefault(run, []).append(row)
    for row, sample in enumerate(samples):
        shared = Counter(other for run in word_runs(sample.text, RUN) for other in where.get(run, ()))
        shares = [(count / len(runs[other]), -other) for other, count in shared.items()]
        share, other = max(shares, default=(0.0, 0))
        if share >= limits.eval_overlap:
            yield Removal(row, "text of an evaluation set", f"{share:.0%} of {held[-other].key} of {name}")


def filtered(samples: Sequence[Surveyed], limits: Limits) -> Iterator[Removal]:
    """Samples that a filter refuses, by the first one that does; broken ones first."""
    for row, sample in enumerate(samples):
        shorter, longer = sorted((sample.width, sample.height))
        length = len(sample.text)
        if sample.broken:
            yield Removal(row, "broken", sample.broken)
        elif limits.min_side is not None and longer and shorter < limits.min_side:
            yield Removal(row, "min-side", f"{sample.width} x {sample.height} px")
        elif limits.max_aspect is not None and longer > limits.max_aspect * shorter:
            yield Removal(row, "max-aspect", f"{sample.width} x {sample.height} px")
        elif limits.min_text is not None and length < limits.min_text:
            yield Removal(row, "min-text", f"{length} characters")
        elif limits.max_text is not None and length > limits.max_text:
            yield Removal(row, "max-text", f"{length} characters")


def _with_text(sample: Surveyed, value: str | None) -> tuple[str, str, str] | None:
    """A picture with other words, another mask or other objects is another sample."""
    return None if value is None else (value, sample.text, sample.labels)


def _alike(samples: Sequence[Surveyed], limit: int) -> list[tuple[int, int]]:
    """Rows with as many pictures, each of which looks like the other's in its place."""
    rows = np.array([row for row, sample in enumerate(samples) if sample.looks], np.int64)
    firsts = np.array([samples[row].looks[0] for row in rows], np.uint64)
    pairs = [(int(rows[one]), int(rows[two])) for one, two in near_pairs_within(firsts, limit)]
    return [
        (one, two)
        for one, two in pairs
        if len(samples[one].looks) == len(samples[two].looks)
        and all(
            distance(mine, theirs) <= limit for mine, theirs in zip(samples[one].looks, samples[two].looks, strict=True)
        )
    ]


def _relabelled(one: Surveyed, two: Surveyed) -> bool:
    """Equal pixels, other labels. Of other pixels they are not compared: the boxes of a smaller copy differ."""
    return one.pixel_hash is not None and one.pixel_hash == two.pixel_hash and one.labels != two.labels


def _one_sample(samples: Sequence[Surveyed], pair: tuple[int, int], limits: Limits) -> bool:
    """Whether similar pictures have similar words, and are no pair of `_relabelled`."""
    one, two = (samples[row] for row in pair)
    if _relabelled(one, two):
        return False
    return one.text == two.text or bool(similar_texts([one.text, two.text], limits.text_overlap))


def _picture_free(samples: Sequence[Surveyed], limits: Limits) -> list[tuple[int, int]]:
    """Similar texts among the samples without a picture: of those with one, the same words are no copy."""
    rows = [row for row, sample in enumerate(samples) if sample.file_hash is None and sample.text]
    pairs = similar_texts([samples[row].text for row in rows], limits.text_overlap)
    return [(rows[one], rows[two]) for one, two in pairs]

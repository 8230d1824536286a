"""The checks by name; each says which rows to remove and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_engine.quality.groups import Pair, equal_groups, joined_groups
from data_engine.quality.perceptual import near_pairs, near_pairs_within
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
    """A row to leave out, by which check, and what it repeats or why. `picture`: the number, from 0, of the one that
    the check is about; None where it is about the whole sample.
    """

    row: int
    check: str
    why: str
    picture: int | None = None


def duplicates(samples: Sequence[Surveyed], limits: Limits) -> Iterator[Removal]:
    """Copies: of each group the first row stays. A row is named by the strictest check that finds it.

    Samples are copies when all their pictures are, each of the one in its place, and their words.
    """
    listed = list(samples)
    seen = [(*sample.pictures, *sample.rasters) for sample in listed]
    files = [_whole(sample, [each.file_hash for each in own]) for sample, own in zip(listed, seen, strict=True)]
    pixels = [_whole(sample, [each.pixel_hash for each in own]) for sample, own in zip(listed, seen, strict=True)]
    found = (
        ("same file", equal_groups(files)),
        ("same pixels", equal_groups(pixels)),
        ("same text", equal_groups([sample.text if sample.is_text and sample.text else None for sample in listed])),
        ("similar picture", joined_groups(_alike(listed, limits))),
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
    """Samples that an evaluation set holds too: a picture, any of theirs, that looks alike, or the words."""
    mine, theirs = looks(samples), looks(held)
    for one, two in near_pairs(mine.hashes, theirs.hashes, limits.look_distance):
        row, number = int(mine.rows[one]), int(mine.numbers[one])
        other = held[int(theirs.rows[two])]
        at, there = _named(samples[row], number, ": "), _named(other, int(theirs.numbers[two]), " of ")
        yield Removal(row, "picture of an evaluation set", f"{at}as {there}{other.key} of {name}", number)
    where: dict[str, list[int]] = {}
    runs = [word_runs(sample.text, RUN) for sample in held]
    for row, texts in enumerate(runs):
        for run in texts:
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
        length = len(sample.text)
        refused = _refused_picture(sample, limits)
        if sample.broken:
            at = "" if not sample.broken_picture else f"picture {sample.broken_picture}: "
            yield Removal(row, "broken", at + sample.broken, sample.broken_picture)
        elif refused:
            yield Removal(row, *refused)
        elif limits.min_text is not None and length < limits.min_text:
            yield Removal(row, "min-text", f"{length} characters")
        elif limits.max_text is not None and length > limits.max_text:
            yield Removal(row, "max-text", f"{length} characters")


def _refused_picture(sample: Surveyed, limits: Limits) -> tuple[str, str, int] | None:
    """(check, why, number) of the first picture of a size that is refused."""
    for number, picture in enumerate(sample.shown):
        shorter, longer = sorted((picture.width, picture.height))
        why = f"{_named(sample, number, ': ')}{picture.width} x {picture.height} px"
        if limits.min_side is not None and shorter < limits.min_side:
            return "min-side", why, number
        if limits.max_aspect is not None and longer > limits.max_aspect * shorter:
            return "max-aspect", why, number
    return None


def _named(sample: Surveyed, number: int, then: str) -> str:
    """The number of a picture and what follows it, where a sample has more than one; else nothing."""
    return f"picture {number}{then}" if len(sample.shown) > 1 else ""


def _whole(sample: Surveyed, hashes: Sequence[str]) -> tuple[int, tuple[str, ...], str, str] | None:
    """What makes a sample the same as another: a picture with other words, another mask or other objects is another
    sample, and text alone is none.
    """
    return None if sample.is_text else (len(sample.pictures), tuple(hashes), sample.text, sample.labels)


def _alike(samples: Sequence[Surveyed], limits: Limits) -> list[Pair]:
    """Pairs of samples with as many pictures, each like the one in its place, and similar words."""
    rows, numbers, hashes = looks(samples)
    places: Counter[Pair] = Counter()
    for one, two in near_pairs_within(hashes, limits.look_distance):
        if numbers[one] == numbers[two]:
            places[int(rows[one]), int(rows[two])] += 1
    return [(a, b) for (a, b), count in places.items() if _all_alike(samples[a], samples[b], count, limits)]


def _all_alike(one: Surveyed, two: Surveyed, count: int, limits: Limits) -> bool:
    """`count`: how many pictures look like the other's in their places."""
    for sample in (one, two):
        if (count, len(sample.pictures), len(sample.rasters)) != (len(one.shown), len(one.pictures), len(one.rasters)):
            return False
    if _relabelled(one, two):
        return False
    return one.text == two.text or bool(similar_texts([one.text, two.text], limits.text_overlap))


def _relabelled(one: Surveyed, two: Surveyed) -> bool:
    """Equal pixels, other labels. Of other pixels they are not compared: the boxes of a smaller copy differ."""
    pixels = [[each.pixel_hash for each in (*sample.pictures, *sample.rasters)] for sample in (one, two)]
    return pixels[0] == pixels[1] != [] and one.labels != two.labels


def _picture_free(samples: Sequence[Surveyed], limits: Limits) -> list[Pair]:
    """Similar texts among the samples that show nothing: of those that do, the same words are no copy."""
    rows = [row for row, sample in enumerate(samples) if sample.is_text and sample.text]
    pairs = similar_texts([samples[row].text for row in rows], limits.text_overlap)
    return [(rows[one], rows[two]) for one, two in pairs]

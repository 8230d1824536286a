"""Named changes to records while they are built, `transforms: [...]` in the config, each counted.

A transform gives the sample as it should be stored, or refuses it with an InputError: then it is rejected, as a damaged
one is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from data_engine.quality.texts import without_thinking
from data_engine.stored_sample import IMAGE_PLACEHOLDER, StoredSample, Turn
from mmzoo.errors import InputError

CHANGED, REFUSED = "changed", "refused"
TransformCounts = dict[str, dict[str, int]]  # {transform: {CHANGED, REFUSED: samples}}


def thinking_removed(sample: StoredSample) -> StoredSample:
    """Without `<think>...</think>` in what the assistant says and in the text; other turns may speak of the tags.

    InputError: half a tag; a turn that was nothing else; a picture that stands in the thinking.
    """
    turns = tuple(_spoken(turn) if turn.role == "assistant" else turn for turn in sample.conversation)
    return replace(sample, conversation=turns, text=None if sample.text is None else _cleaned(sample.text))


def _spoken(turn: Turn) -> Turn:
    text = _cleaned(turn.text)
    if turn.text.strip() and not text.strip():
        raise InputError("a turn is nothing but thinking")
    if text.count(IMAGE_PLACEHOLDER) != turn.text.count(IMAGE_PLACEHOLDER):
        raise InputError(f"{IMAGE_PLACEHOLDER} stands in the thinking")
    return replace(turn, text=text)


def _cleaned(text: str) -> str:
    try:
        return without_thinking(text)
    except ValueError as fault:
        raise InputError(str(fault)) from None


TRANSFORMS: dict[str, Callable[[StoredSample], StoredSample]] = {"without_thinking": thinking_removed}


def transformed(sample: StoredSample, names: Sequence[str], counts: TransformCounts) -> StoredSample:
    """The sample after the transforms of these names, in their order. InputError, with the name: one refuses it."""
    for name in names:
        count = counts.setdefault(name, {CHANGED: 0, REFUSED: 0})
        try:
            after = TRANSFORMS[name](sample)
        except InputError as mistake:
            count[REFUSED] += 1
            raise InputError(f"{name}: {mistake}") from None
        count[CHANGED] += after != sample
        sample = after
    return sample


def summed(parts: Sequence[TransformCounts], names: Sequence[str]) -> TransformCounts:
    """The counts of all parts, of each name."""
    return {
        name: {what: sum(part.get(name, {}).get(what, 0) for part in parts) for what in (CHANGED, REFUSED)}
        for name in names
    }

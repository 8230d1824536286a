"""The text of a sample, its words and runs of words, and texts that are nearly the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from data_engine.quality.groups import Pair

WORD = re.compile(r"\w+")
SHINGLE = 5  # characters
PERMUTATIONS = 128
THINK = re.compile(r"<think>.*?</think>\s*", re.DOTALL | re.IGNORECASE)
OPEN_THINK, CLOSED_THINK = re.compile(r"<think>", re.IGNORECASE), re.compile(r"</think>", re.IGNORECASE)


def sample_text(meta: Mapping[str, Any]) -> str:
    """All that a sample's json says in words: `text`, `caption`, and the turns of `conversation`, a line each."""
    parts = [meta[name] for name in ("text", "caption") if isinstance(meta.get(name), str)]
    for turn in meta.get("conversation") or ():
        parts.append(str(turn.get("text", "")).replace("<image>", " "))
    return "\n".join(part.strip() for part in parts if part.strip())


def words(text: str) -> list[str]:
    """Lower-case words, compatibility forms made one; no punctuation."""
    return WORD.findall(unicodedata.normalize("NFKC", text).lower())


def word_runs(text: str, length: int) -> set[str]:
    """Every run of `length` words; of a shorter text the whole; of an empty one nothing."""
    found = words(text)
    if not found:
        return set()
    return {" ".join(found[start : start + length]) for start in range(max(1, len(found) - length + 1))}


def without_thinking(text: str) -> str:
    """The text without `<think>...</think>` and the blank that follows. ValueError: a tag without its other half."""
    cleaned = THINK.sub("", text)
    if OPEN_THINK.search(cleaned) or CLOSED_THINK.search(cleaned):
        raise ValueError("a <think> tag without its other half")
    return cleaned


def shingles(text: str) -> set[str]:
    """Every run of 5 characters of the normalised text; of a shorter text the whole."""
    flat = " ".join(words(text))
    return {flat[start : start + SHINGLE] for start in range(max(1, len(flat) - SHINGLE + 1))} if flat else set()


def similar_texts(texts: Sequence[str], threshold: float) -> list[Pair]:
    """Pairs of rows whose shingles overlap (Jaccard) by at least `threshold`, 0 to 1; empty texts resemble nothing.

    MinHash with banding proposes, so that not all are compared; the exact overlap decides. A pair at the very threshold
    may be missed by the proposal, a wrong one is never returned.
    """
    from datasketch import MinHash, MinHashLSH

    # Proposed a little below the threshold: the estimate has a standard error of some 0.04.
    proposals = MinHashLSH(threshold=max(0.1, threshold - 0.1), num_perm=PERMUTATIONS)
    held = [shingles(text) for text in texts]
    pairs = []
    for row, mine in enumerate(held):
        if not mine:
            continue
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([shingle.encode() for shingle in sorted(mine)])
        others = sorted(int(str(other)) for other in proposals.query(sketch))
        pairs += [(other, row) for other in others if overlap(held[other], mine) >= threshold]
        proposals.insert(row, sketch)
    return pairs


def overlap(one: set[str], two: set[str]) -> float:
    """Jaccard: shared over all."""
    return len(one & two) / len(one | two) if one or two else 0.0

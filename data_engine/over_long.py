"""Samples longer than a row of the model: what is done with them is the user's choice, and what was done is listed.

    error              the first one ends the run before it begins
    drop               it is left out, before the mixture counts
    downscale-images   its visual tokens are limited to the room beside the text
    truncate-text      its text tokens are limited to the room beside the images, which are never cut

The last two set limits that the transform keeps to (`planned` in a sample's meta). A sample that they cannot mend (the
text or the images alone fill the row) goes to the next policy of the list, the last of which is `error` or `drop`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmzoo.errors import InputError, suggestion

POLICIES = ("error", "drop", "downscale-images", "truncate-text")


@dataclass(frozen=True, slots=True)
class Planned:
    """Tokens of each row after the policies: `text`, `visual` int64 (N,); `kept` bool (N,); `policy` int8 (N,), the
    number in POLICIES of what was done, -1 for nothing. `longest`: tokens of the longest row before.
    """

    text: np.ndarray
    visual: np.ndarray
    kept: np.ndarray
    policy: np.ndarray
    before: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Tokens of each row."""
        return self.text + self.visual

    def of_row(self, row: int) -> dict[str, Any]:
        """What a transform is told about a row, as `planned` in its sample's meta."""
        policy = int(self.policy[row])
        tokens = {"text_tokens": int(self.text[row]), "visual_tokens": int(self.visual[row])}
        return {**tokens, "policy": POLICIES[policy] if policy >= 0 else ""}


def checked(policies: str | Sequence[str]) -> tuple[str, ...]:
    """The policies in the order of trying. InputError: unknown ones, or something after error or drop."""
    listed = (policies,) if isinstance(policies, str) else tuple(policies)
    for policy in listed:
        if policy not in POLICIES:
            raise InputError(f"packing.over_long: no policy {policy!r}.{suggestion(policy, POLICIES)}")
    if not listed or any(policy in POLICIES[:2] for policy in listed[:-1]):
        raise InputError("packing.over_long: error and drop end the list; name at least one policy")
    return listed if listed[-1] in POLICIES[:2] else (*listed, "error")


def planned(lengths: np.ndarray, capacity: int, policies: Sequence[str]) -> tuple[Planned, int | None]:
    """The plan, and the first row that `error` forbids. `lengths`: int (N, 2), text and visual tokens."""
    text, visual = lengths[:, 0].copy(), lengths[:, 1].copy()
    before = text + visual
    policy = np.full(len(before), -1, np.int8)
    kept = np.ones(len(before), bool)
    forbidden = None
    for name in policies:
        left = (text + visual > capacity) & kept
        if name == "downscale-images":
            left &= (text < capacity) & (visual > 0)
            visual[left] = capacity - text[left]
        elif name == "truncate-text":
            left &= visual < capacity
            text[left] = capacity - visual[left]
        elif name == "drop":
            kept[left] = False
        elif left.any():
            forbidden = int(np.flatnonzero(left)[0])
        policy[left] = POLICIES.index(name)
    return Planned(text, visual, kept, policy, before), forbidden


def table(plan: Planned, rows: np.ndarray, starts: np.ndarray, names: Sequence[str], capacity: int) -> str:
    """What was done to the over-long ones among `rows`, one line a source and policy; empty when there was none.

    `starts`: first row of each source, and the number of all rows.
    """
    lines = []
    for number, name in enumerate(names):
        own = rows[(rows >= starts[number]) & (rows < starts[number + 1])]
        for code in sorted(set(plan.policy[own].tolist()) - {-1}):
            hit = plan.policy[own] == code
            lines.append(
                f"{name}: {POLICIES[code]}: {int(hit.sum())} of {len(hit)} samples, "
                f"longer than {capacity} tokens, the longest {int(plan.before[own][hit].max())}"
            )
    return "".join(f"{line}\n" for line in lines)

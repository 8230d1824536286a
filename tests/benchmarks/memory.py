"""Peak memory of torch tensors in one call: what a process-wide peak hides behind its imports, exact to the byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak_mib(call: Callable[[], Any]) -> float:
    """Highest sum of tensor bytes on the CPU that were allocated, and not yet freed, since the call began, in MiB.

    Run the call once before: what it allocates once and keeps is not its peak.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = call()  # held on to: the result is part of the peak
    del result
    events = recorded.profiler.kineto_results.events()
    held = most = 0
    for _, size in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        held += size
        most = max(most, held)
    return most / 2**20

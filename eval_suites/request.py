"""The wall between the runner and a suite: what a suite is handed, and what it gives back.

A suite's `evaluate(request) -> Sequence[Metric]` opens its data, calls `request.open_log(settings, data)` once,
measures the samples that are not in that log yet, appends a row for each, and makes its metrics from the log's rows
alone. So a killed evaluation goes on where it was, and the same log always gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from eval_suites.record import DataStamp
from eval_suites.sample_log import SampleLog


class OpenLog(Protocol):
    """Opens the log of this evaluation, new or begun earlier. InputError: what was begun had other settings."""

    def __call__(self, settings: Mapping[str, Any], data: DataStamp) -> SampleLog:
        """settings: all of the protocol that could change a number, and nothing that belongs to the model itself.

        Records of different settings never share a table, so a model's own sizes among them would keep it apart.
        """
        ...


@dataclass(frozen=True)
class EvalRequest:
    """One evaluation. model: loaded, in evaluation mode, on `device`. data: a shard folder or a folder of images.

    split: of shards. limit: samples to measure at most, the first ones in the suite's own order. options: values of the
    suite's `options` by name (see description.Option). open_log: to be called once.
    """

    model: Any
    data: Path
    split: str
    device: str
    limit: int | None
    options: Mapping[str, Any]
    open_log: OpenLog

"""One evaluation in one folder: opened new, gone on with, found finished, or refused; and the record it ends in."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eval_suites.description import Suite
from eval_suites.record import (
    RECORD_FILE,
    SCHEMA,
    DataStamp,
    EvalRecord,
    Metric,
    ModelStamp,
    SuiteStamp,
    read_record,
)
from eval_suites.sample_log import SAMPLES_FILE, SampleLog, read_sample_log
from eval_suites.strict_json import to_plain
from mmzoo.environment import git_commit, hardware, versions
from mmzoo.errors import InputError


class AlreadyMeasuredError(Exception):
    """The folder holds the finished record of this very evaluation."""

    def __init__(self, record: EvalRecord) -> None:
        super().__init__("measured before")
        self.record = record


@dataclass
class Evaluation:
    """One evaluation in one folder: what it is of, and the log that it writes."""

    suite: Suite
    model: ModelStamp
    out: Path
    settings: Mapping[str, Any] | None = None
    data: DataStamp | None = None
    log: SampleLog | None = None
    resumed: bool = False

    def open_log(self, settings: Mapping[str, Any], data: DataStamp) -> SampleLog:
        """See request.OpenLog. AlreadyMeasuredError: nothing is left to do."""
        self.settings, self.data = settings, data
        stamp = identity_stamp(SuiteStamp(self.suite.name, self.suite.version, settings), self.model, data)
        earlier = self.out / RECORD_FILE
        if earlier.exists():
            record = read_record(earlier)
            _refuse_another(earlier, record, stamp)
            read_sample_log(self.out, record.samples)
            raise AlreadyMeasuredError(record)
        self.log = SampleLog(self.out / SAMPLES_FILE, stamp)
        self.resumed = bool(self.log.rows)
        if self.resumed:
            sys.stderr.write(f"going on after {len(self.log.rows)} samples in {self.log.path}\n")
        return self.log

    def record(
        self, metrics: Sequence[Metric], command: str, seconds: float, device: str, chosen: Mapping[str, str]
    ) -> EvalRecord:
        """The record of the finished evaluation. chosen: see ZooModel.chosen_methods; it stands with the hardware."""
        if self.log is None or self.settings is None or self.data is None:
            raise RuntimeError(f"the suite {self.suite.name!r} did not open its log")
        return EvalRecord(
            schema=SCHEMA,
            suite=SuiteStamp(self.suite.name, self.suite.version, self.settings),
            model=self.model,
            data=self.data,
            samples=self.log.stamp(),
            metrics=tuple(metrics),
            command=command,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=None if self.resumed else round(seconds, 3),
            device=device,
            hardware={**hardware(), **({"computed_with": dict(chosen)} if chosen else {})},
            versions=versions(),
            git_commit=git_commit(),
        )


def identity_stamp(suite: SuiteStamp, model: ModelStamp, data: DataStamp) -> dict[str, Any]:
    """What must be equal for an evaluation to be the same one. What model and data are called is not part of it."""
    what = to_plain(data)
    del what["name"]
    return {"suite": to_plain(suite), "model": dict(model.files), "data": what}


def _refuse_another(file: Path, record: EvalRecord, stamp: Mapping[str, Any]) -> None:
    """InputError when the record in the folder is of something else; it names what."""
    there, now = _flat(identity_stamp(record.suite, record.model, record.data)), _flat(stamp)
    for name in [*there, *now]:
        if there.get(name) != now.get(name):
            raise InputError(
                f"{file} is of another evaluation ({name}: {_short(there.get(name))} there, {_short(now.get(name))} "
                f"now). Choose another --out."
            )


def _flat(stamp: Mapping[str, Any]) -> dict[str, Any]:
    """ "suite version", "suite settings limit", ... -> value."""
    suite = dict(stamp["suite"])
    tables = {"suite settings": suite.pop("settings"), "model": stamp["model"], "data": stamp["data"]}
    return {
        f"{part} {name}": value for part, table in {"suite": suite, **tables}.items() for name, value in table.items()
    }


def _short(value: Any) -> str:
    """A value in little room: of a hash the start is enough."""
    return value[:12] if isinstance(value, str) else str(value)

"""What one evaluation leaves behind: one model, one suite in one version, one set of data, one JSON file.

`record.json` is strict JSON: every field is there, an absent value is null, and an infinite one (the PSNR of exact
copies) the word "inf". NaN is never written; what could not be measured says why instead. Absolute paths of the machine
are no part of it. The rows behind the numbers lie beside it in the sample log (sample_log.py), whose hash it holds.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval_suites.statistics import Interval
from eval_suites.strict_json import from_plain, parse, plain_json, to_plain
from mmzoo.durable_files import refused_writes_named, write_text
from mmzoo.errors import InputError

SCHEMA = 1
RECORD_FILE = "record.json"


@dataclass(frozen=True, slots=True)
class Metric:
    """One number, or the reason why there is none.

    name: with its slice after an @ ("psnr@4"). value: None exactly when `not_measured` says why. unit: "dB", "" for a
    pure number. higher_is_better: None where neither is (bits per pixel). low, high: the interval at `level` (0.95),
    all three or none. n_values values in n_groups independent groups are behind it; n_infinite more were +inf and are
    in none of the figures. ValueError: NaN, an interval that is none, both or neither of value and reason.
    """

    name: str
    value: float | None
    unit: str = ""
    higher_is_better: bool | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    n_values: int = 0
    n_groups: int = 0
    n_infinite: int = 0
    not_measured: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a metric has no name")
        if (self.value is None) == (self.not_measured is None):
            raise ValueError(f"metric {self.name!r} needs a value, or else the reason why it was not measured")
        if any(number is not None and math.isnan(number) for number in (self.value, self.low, self.high, self.level)):
            raise ValueError(f"metric {self.name!r} is NaN: say why it was not measured instead")
        self._check_interval()
        if min(self.n_values, self.n_groups, self.n_infinite) < 0:
            raise ValueError(f"metric {self.name!r} has a negative count")

    def _check_interval(self) -> None:
        ends = (self.low, self.high, self.level)
        if self.low is None or self.high is None or self.level is None:
            if ends != (None, None, None):
                raise ValueError(
                    f"metric {self.name!r} has half an interval: give low, high and level, or none of them"
                )
        elif self.value is None or self.low > self.high or not 0 < self.level < 1:
            raise ValueError(f"metric {self.name!r} has no sound interval: {self.low} to {self.high} at {self.level}")

    @classmethod
    def of(cls, name: str, interval: Interval, *, unit: str = "", higher_is_better: bool | None = None) -> Metric:
        """The metric of a mean with its bootstrap interval."""
        bounded = interval.low is not None
        return cls(
            name=name,
            value=interval.mean,
            unit=unit,
            higher_is_better=higher_is_better,
            low=interval.low,
            high=interval.high,
            level=interval.level if bounded else None,
            n_values=interval.n_values,
            n_groups=interval.n_groups,
            n_infinite=interval.n_infinite,
        )

    @classmethod
    def absent(cls, name: str, reason: str, *, unit: str = "", higher_is_better: bool | None = None) -> Metric:
        """A metric that was not measured, and why: "weights absent"."""
        return cls(name=name, value=None, unit=unit, higher_is_better=higher_is_better, not_measured=reason)


@dataclass(frozen=True)
class SuiteStamp:
    """Which protocol. settings: all that could change a number (resize, levels, limit, the hash of prompts, ...)."""

    name: str
    version: str
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", plain_json(dict(self.settings)))


@dataclass(frozen=True)
class ModelStamp:
    """Which model. files: name -> sha256 of config.json and of each file of weights; they are what the model *is*.

    name: a Hub id, or what the folder is called. revision: the Hub's commit. hashes: "verified" against zoo.json or
    "not recorded". tensors, tensors_from_file, missing: see mmzoo.hub.receipt.LoadReceipt.
    """

    name: str
    family: str
    variant: str | None
    revision: str | None
    files: Mapping[str, str]
    hashes: str
    tensors: int
    tensors_from_file: int
    missing: tuple[str, ...]

    @property
    def identity(self) -> str:
        """sha256 over the files: equal for equal weights and config, whatever the folder is called."""
        return _hash_of(dict(self.files))


@dataclass(frozen=True)
class DataStamp:
    """Which samples. kind: "shards" or "folder". identity: sha256 of the index, or of the list of the files' hashes.

    split: None for a folder without splits. n: samples measured (a limit is among the suite's settings).
    """

    name: str
    kind: str
    split: str | None
    identity: str
    n: int


@dataclass(frozen=True)
class SampleLogStamp:
    """The file of rows beside the record: its name, the sha256 of its content, and how many rows it holds."""

    file: str
    sha256: str
    rows: int

    def __post_init__(self) -> None:
        if not self.file or Path(self.file).name != self.file:
            raise ValueError(f"the sample log {self.file!r} must lie beside the record: a name without folders")


@dataclass(frozen=True)
class EvalRecord:
    """One evaluation.

    command: the line that makes it again, paths cut to names. date: ISO 8601, UTC, when it ended. seconds: of
    measuring, None where it was resumed. device: "cpu", "cuda:0", ... hardware, versions, git_commit: see
    mmzoo.environment. ValueError: a metric twice, another schema.
    """

    schema: int
    suite: SuiteStamp
    model: ModelStamp
    data: DataStamp
    samples: SampleLogStamp
    metrics: tuple[Metric, ...]
    command: str
    date: str
    seconds: float | None
    device: str
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]
    git_commit: str | None

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema {self.schema}; this mmzoo reads schema {SCHEMA}")
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise ValueError(f"the metric {max(names, key=names.count)!r} stands there twice")
        object.__setattr__(self, "hardware", plain_json(dict(self.hardware)))

    def metric(self, name: str) -> Metric | None:
        """The metric of that name, or None."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    @property
    def comparable(self) -> str:
        """Equal for records whose numbers may stand in one table: same suite, version, settings and data."""
        return _hash_of(
            {
                "suite": to_plain(self.suite),
                "data": [self.data.kind, self.data.split, self.data.identity, self.data.n],
            }
        )


def record_text(record: EvalRecord) -> str:
    """The content of record.json."""
    return json.dumps(to_plain(record), indent=1, allow_nan=False) + "\n"


def write_record(record: EvalRecord, path: Path) -> None:
    """Writes the record in one step. InputError: the system refuses to write."""
    text = record_text(record)
    with refused_writes_named(path):
        write_text(path, text)


def read_record(path: Path) -> EvalRecord:
    """Reads a record strictly. InputError names the file and the field."""
    try:
        return parse_record(path.read_bytes())
    except OSError as fault:
        raise InputError(f"no record at {path} ({fault.strerror}). Make one with: mmzoo eval run") from fault
    except ValueError as fault:  # InputError is one
        raise InputError(f"{path} is no sound record: {fault}. Measure again: mmzoo eval run") from fault


def parse_record(text: str | bytes) -> EvalRecord:
    """A record from its JSON text. InputError or ValueError says what is wrong, without a file's name."""
    content = parse(text)
    if isinstance(content, dict) and content.get("schema") != SCHEMA:  # another schema has other fields: say it first
        raise ValueError(f"schema {content.get('schema')!r}; this mmzoo reads schema {SCHEMA}")
    return from_plain(EvalRecord, content)


def _hash_of(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

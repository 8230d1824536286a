"""A record as the Hugging Face Hub shows it: `model-index` in the card, and entries of `.eval_results/*.yaml`.

Formats: huggingface_hub's own EvalResult and EvalResultEntry. An entry of `.eval_results` speaks of a benchmark on the
Hub, so there are none unless its id is given. A number that was not measured, or is infinite, is left out of both; it
stays in the record, which goes up beside them and which every result names as its source.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import EvalResult, EvalResultEntry

from eval_suites.leaderboard.gathering import read_entry
from eval_suites.record import RECORD_FILE, EvalRecord, Metric
from eval_suites.wording import basis_text, value_text
from mmzoo.hub.evaluations import Evaluation, Target


def export(path: Path, target: Target) -> Evaluation:
    """What the record becomes. InputError: damaged, its sample log is, or the two contradict each other."""
    record = read_entry(path).record
    place = f"evals/{record.suite.name}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
    source = f"{target.url}/{place}/{RECORD_FILE}"
    shown = [metric for metric in record.metrics if metric.value is not None and math.isfinite(metric.value)]
    return Evaluation(
        record=path,
        suite=record.suite.name,
        model_files=record.model.files,
        results=[_result(record, metric, source) for metric in shown],
        entries=[_entry(record, metric, source, target.dataset) for metric in shown] if target.dataset else [],
        files={
            f"{place}/{RECORD_FILE}": path,
            f"{place}/{record.samples.file}": path.parent / record.samples.file,
        },
        section=list(_section(record, place)),
    )


def _protocol(record: EvalRecord) -> str:
    return f"{record.suite.name}, version {record.suite.version}"


def _result(record: EvalRecord, metric: Metric, source: str) -> EvalResult:
    kind, _, slice_ = metric.name.partition("@")
    about = {"interval": _interval(metric), "unit": metric.unit, "slice": slice_}
    return EvalResult(
        task_type=record.suite.name,
        task_name=_protocol(record),
        dataset_type=re.sub(r"[^A-Za-z0-9._-]+", "-", record.data.name).strip("-.") or "data",
        dataset_name=record.data.name,
        dataset_split=record.data.split,
        dataset_args={"sha256": record.data.identity, "n": record.data.n, "settings": dict(record.suite.settings)},
        metric_type=kind,
        metric_name=metric.name,
        metric_value=metric.value,
        metric_args={name: text for name, text in about.items() if text} or None,
        source_name="record and sample log",
        source_url=source,
    )


def _entry(record: EvalRecord, metric: Metric, source: str, dataset: str) -> EvalResultEntry:
    return EvalResultEntry(
        dataset_id=dataset,
        task_id=metric.name,
        value=metric.value,
        date=record.date,
        source_url=source,
        source_name="record and sample log",
        notes="; ".join(text for text in (_protocol(record), metric.unit, _interval(metric), _counts(metric)) if text),
    )


def _interval(metric: Metric) -> str:
    """ "20.9 to 22.1 at 95 %"; empty without one."""
    return "" if metric.low is None else f"{metric.low:.6g} to {metric.high:.6g} at {100 * (metric.level or 0):g} %"


def _counts(metric: Metric) -> str:
    """ "n 40 in 5 groups"; empty where the record does not say."""
    return f"n {metric.n_values} in {metric.n_groups} groups" if metric.n_values else ""


def _section(record: EvalRecord, place: str) -> Iterator[str]:
    split = f", split {record.data.split}" if record.data.split is not None else ""
    yield f"{_protocol(record)}, on {record.data.name}{split} ({record.data.n} samples), {record.date[:10]}:"
    yield f"[record]({place}/{RECORD_FILE}), [rows]({place}/{record.samples.file})."
    yield ""
    yield "| metric | value | rests on |"
    yield "|---|---|---|"
    for metric in record.metrics:
        if metric.not_measured is not None:
            yield f"| {metric.name} | not measured | {metric.not_measured.replace('|', '/')} |"
        else:
            yield f"| {metric.name} | {value_text(metric)} {metric.unit}".rstrip() + f" | {basis_text(metric)} |"

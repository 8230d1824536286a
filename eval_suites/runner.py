"""`mmzoo eval run`: loads a model, lets a suite measure it, and leaves the record and the sample log in a folder.

    OUT/record.json     the numbers, what they are of, and the hash of the rows behind them
    OUT/samples.jsonl   one row a sample, written as it is measured

A killed evaluation goes on when the same command is given again; a finished one is left as it is. A folder of another
model, suite version, setting or data is refused.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval_suites.description import Option, Suite
from eval_suites.evaluation import AlreadyMeasuredError, Evaluation
from eval_suites.finding import get_suite
from eval_suites.fitting import refuse_unfit
from eval_suites.model_loading import load_model
from eval_suites.record import RECORD_FILE, EvalRecord, write_record
from eval_suites.request import EvalRequest
from eval_suites.strict_json import to_plain
from eval_suites.wording import metric_text
from mmzoo.durable_files import refused_writes_named
from mmzoo.errors import CommandParser, InputError
from mmzoo.families import load_object
from mmzoo.folder_lock import only_writer
from mmzoo.hub.device import usable_device
from mmzoo.hub.facts import command_without_paths
from mmzoo.hub.model import chosen_methods


def run_suite(suite: Suite, arguments: Any, command: str) -> EvalRecord:
    """Measures and writes; returns the record, also the one of an earlier finished run."""
    if arguments.limit is not None and arguments.limit < 1:
        raise InputError(f"--limit {arguments.limit}: give 1 or more, or leave it out.")
    if arguments.out.is_file():
        raise InputError(f"--out {arguments.out} is a file. Name a folder.")
    options = {option.name: _read(option, getattr(arguments, option.name)) for option in suite.options}
    made = not arguments.out.exists()
    with refused_writes_named(arguments.out):
        arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        with only_writer(arguments.out, "an evaluation", "Wait for it, or name another --out."):
            return _measured(suite, arguments, options, command)
    finally:
        if made and not any(arguments.out.iterdir()):
            arguments.out.rmdir()


def _measured(suite: Suite, arguments: Any, options: dict[str, Any], command: str) -> EvalRecord:
    """Under the lock of the folder."""
    device = str(usable_device(arguments.device))
    model, stamp = load_model(arguments.model, arguments.revision, arguments.name, device)
    refuse_unfit(suite, model, arguments.model)
    evaluation = Evaluation(suite, stamp, arguments.out)
    request = EvalRequest(model, arguments.data, arguments.split, device, arguments.limit, options, evaluation.open_log)
    start = time.monotonic()
    try:
        metrics = load_object(suite.evaluate)(request)
        record = evaluation.record(metrics, command, time.monotonic() - start, device, chosen_methods(model))
    except AlreadyMeasuredError as earlier:
        sys.stderr.write(f"{arguments.out} holds this evaluation already, finished {earlier.record.date}\n")
        return earlier.record
    finally:
        if evaluation.log is not None:
            evaluation.log.close()
    write_record(record, arguments.out / RECORD_FILE)
    return record


def _read(option: Option, text: str | None) -> Any:
    if text is None:
        return option.default
    try:
        return option.read(text)
    except InputError as mistake:
        raise InputError(f"--{option.name} {mistake}") from mistake


def summary(record: EvalRecord, headline: Sequence[str] = ()) -> str:
    """The numbers for a person, one line each; then what was not measured, one line a reason.

    headline: metrics without their slice that are shown (none: all); how many others there are is said.
    """
    shown = [one for one in record.metrics if not headline or one.name.partition("@")[0] in headline]
    measured = [metric for metric in shown if metric.value is not None]
    width = max((len(metric.name) for metric in measured), default=0)
    levels = dict.fromkeys(f"{100 * metric.level:g} %" for metric in measured if metric.level is not None)
    title = f"{record.suite.name}, version {record.suite.version}: {record.model.name} on {record.data.name}"
    lines = [title + (f" ({', '.join(levels)} intervals over groups)" if levels else "")]
    lines += [f"  {metric.name:<{width}}  {metric_text(metric)}" for metric in measured]
    reasons: dict[str, list[str]] = {}
    for metric in shown:
        if metric.not_measured is not None:
            reasons.setdefault(metric.not_measured, []).append(metric.name)
    lines += [f"  not measured: {', '.join(names)} ({reason})" for reason, names in reasons.items()]
    if left := len(record.metrics) - len(shown):
        lines.append(f"  and {left} more in {RECORD_FILE}; --all shows them here")
    return "\n".join(lines) + "\n"


def _parser(prog: str, suite: Suite | None) -> CommandParser:
    parser = CommandParser(prog=prog, description="Measure a model with a suite; `mmzoo eval list` shows them.")
    add = parser.add_argument
    add("suite", help="a suite's name, before all options")
    add("--model", required=True, help="model folder, checkpoint folder or Hub id")
    add(
        "--data",
        type=Path,
        required=True,
        help="shard folder (mmzoo data build), folder or list: see the README of the suite",
    )
    add("--out", type=Path, required=True, help="folder for record.json and samples.jsonl")
    add("--split", default="val", help="split of shards: val (default), train or all")
    add("--limit", type=int, help="measure so many samples at most")
    add("--device", help="cpu, cuda, ... (default: a GPU where there is one)")
    add("--revision", help="branch, tag or commit of a Hub id")
    add("--name", help="what tables call the model (default: from its folder or id)")
    add("--all", action="store_true", help="print every figure, not only the suite's headline")
    add("--json", action="store_true", help="print the record as JSON")
    for option in suite.options if suite else ():
        add(f"--{option.name}", help=option.help)
    return parser


def main(argv: list[str], prog: str) -> int:
    """`mmzoo eval run SUITE --model M --data D --out DIR [...]`."""
    suite = get_suite(argv[0]) if argv and not argv[0].startswith("-") else None
    arguments = _parser(prog, suite).parse_args(argv)
    if suite is None:
        suite = get_suite(arguments.suite)
        raise InputError(f"name the suite first: {prog} {suite.name} --model ...")
    command = command_without_paths(shlex.join([*prog.split(), *argv]))
    record = run_suite(suite, arguments, command)
    if arguments.json:
        sys.stdout.write(json.dumps(to_plain(record), indent=1) + "\n")
    else:
        sys.stdout.write(summary(record, () if arguments.all else suite.headline))
    return 0

"""`mmzoo data clean SHARDS`: which samples to leave out, and why: copies, test data, broken ones, filters.

Writes `report.json`, `report.md` and `removed.jsonl` into a new folder and touches nothing else. One line of
removed.jsonl is one sample: key, path, check, why, and the number of the picture, from 0, that a check is about.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_engine.decode import quiet_pillow
from data_engine.output_folder import replaced_folder
from data_engine.quality.checks import Limits, Removal, contamination, duplicates, filtered
from data_engine.quality.survey import Surveyed, survey
from data_engine.remote import open_index
from mmzoo.errors import EXIT_OK, CommandParser, InputError

EXAMPLES = 10  # of each check in report.md


def examined(samples: Sequence[Surveyed], evals: dict[str, list[Surveyed]], limits: Limits) -> list[Removal]:
    """What to remove, one entry a sample, by row: filters first, then evaluation sets, then copies of what is left."""
    found: dict[int, Removal] = {}
    for removal in filtered(samples, limits):
        found.setdefault(removal.row, removal)
    for name, held in evals.items():
        for removal in contamination(samples, name, held, limits):
            found.setdefault(removal.row, removal)
    # Copies are sought among what stays: the copy of a sample that goes anyway is not one any more.
    left = [row for row in range(len(samples)) if row not in found]
    for removal in duplicates([samples[row] for row in left], limits):
        found[left[removal.row]] = Removal(left[removal.row], removal.check, removal.why)
    return [found[row] for row in sorted(found)]


def report_of(place: str, samples: Sequence[Surveyed], removed: Sequence[Removal], limits: Limits) -> dict[str, Any]:
    """The report as JSON values."""
    return {
        "shards": place,
        "samples": len(samples),
        "pictures": sum(len(sample.pictures) for sample in samples),
        "removed": len(removed),
        "kept": len(samples) - len(removed),
        "by_check": dict(sorted(Counter(removal.check for removal in removed).items())),
        "limits": asdict(limits),
    }


def markdown(report: dict[str, Any], samples: Sequence[Surveyed], removed: Sequence[Removal]) -> str:
    """The report for people."""
    lines = [f"# {report['shards']}", "", f"{report['samples']} samples, {report['removed']} to remove.", ""]
    lines += ["| check | samples |", "|---|---|"]
    lines += [f"| {check} | {count} |" for check, count in report["by_check"].items()]
    for check in report["by_check"]:
        named = [removal for removal in removed if removal.check == check]
        lines += ["", f"## {check}", ""]
        lines += [f"- `{samples[removal.row].key}`: {' '.join(removal.why.split())}" for removal in named[:EXAMPLES]]
        lines += [f"- ... and {len(named) - EXAMPLES} more"] if len(named) > EXAMPLES else []
    return "\n".join(lines) + "\n"


def write_report(folder: Path, report: dict[str, Any], samples: Sequence[Surveyed], removed: Sequence[Removal]) -> None:
    """The three files, in a folder that must be new or empty. InputError: it is not, or cannot be written."""
    rows = [_listed(samples[removal.row], removal) for removal in removed]
    _check_new(folder)
    try:
        with replaced_folder(folder, overwrite=False) as building:  # half a list would leave half of the copies
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (building / "removed.jsonl").write_text(text, encoding="utf-8", errors="backslashreplace")
            (building / "report.md").write_text(
                markdown(report, samples, removed), encoding="utf-8", errors="backslashreplace"
            )
            (building / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as fault:
        raise InputError(f"cannot write {folder}: {fault.strerror}. Name another folder with -o") from None


def _check_new(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty. Name another folder with -o")


def _listed(sample: Surveyed, removal: Removal) -> dict[str, Any]:
    line = {"key": sample.key, "path": sample.path, "check": removal.check, "why": removal.why}
    return line if removal.picture is None else {**line, "picture": removal.picture}


def _parser(prog: str) -> CommandParser:
    limits = Limits()
    parser = CommandParser(prog=prog, description=__doc__)
    add = parser.add_argument
    add("shards", help="shard folder, or its URL")
    add("--against", nargs="+", default=[], metavar="EVAL", help="shard folders of evaluation sets")
    add("-o", "--output", type=Path, required=True, metavar="REPORT", help="folder for the report: new or empty")
    add("--look-distance", type=int, default=limits.look_distance, help="bits of 64 that similar pictures differ in")
    add("--text-overlap", type=float, default=limits.text_overlap, help="overlap, 0 to 1, of similar texts")
    add("--eval-overlap", type=float, default=limits.eval_overlap, help="share of an evaluation text, 0 to 1")
    add("--min-side", type=int, help="filter: shorter side in px")
    add("--max-aspect", type=float, help="filter: longer over shorter side")
    add("--min-text", type=int, help="filter: characters")
    add("--max-text", type=int, help="filter: characters")
    add("--json", action="store_true", help="print report.json on stdout")
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """`mmzoo data clean`."""
    given = vars(_parser(prog).parse_args(argv))
    place, output, as_json = given.pop("shards"), given.pop("output"), given.pop("json")
    evals = given.pop("against")
    limits = Limits(**given)
    _check_new(output)
    with quiet_pillow():
        samples = survey(open_index(place))
        removed = examined(samples, {name: survey(open_index(name)) for name in evals}, limits)
    report = report_of(place, samples, removed, limits)
    write_report(output, report, samples, removed)
    if as_json:
        sys.stdout.write(json.dumps(report, indent=1) + "\n")
    else:
        counts = ", ".join(f"{check} {count}" for check, count in report["by_check"].items())
        sys.stderr.write(f"{len(removed)} of {len(samples)} samples to remove ({counts or 'nothing'}): {output}\n")
    return EXIT_OK

"""`mmzoo data repair SHARDS -o NEW`: what is sound in damaged shards, written beside them as shards that lint passes.

Every sample is checked as `mmzoo data lint` does. A sample with a fault is left out; mended is what can be mended
exactly: an index or a sha256 that no longer fits, a tar that is cut (its whole samples stay), members that do not
belong there, keys out of order. Kept samples keep their bytes and, as far as the index knows it, their split. SHARDS is
not touched. NEW/repairs.jsonl lists what was done, a line each; it is also a removal list, for `--without`.

Files are proven by the sha256 in their sample's json, the json only by being whole: where the sha256 of a tar no longer
fits, a letter changed in a json cannot be told from the letter that was there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_engine.byte_size import byte_size
from data_engine.code_fields import CODES
from data_engine.decode import quiet_pillow
from data_engine.image_shards import SHARD_BYTES
from data_engine.index import INDEX_FILE, INDEX_FOLDER, INDEX_SCHEMA
from data_engine.lint import codes_field, lint_folder, lint_index
from data_engine.output_folder import REPAIRS_FILE, check_output, replaced_folder
from data_engine.removals import LEFT_OUT
from data_engine.repair_plan import COPY_LEFT_OUT, LOST, MENDED, Repair, RepairPlan
from data_engine.repair_splits import indexed_splits, lost_samples, lost_splits
from data_engine.repair_write import RepairJob, write_repaired
from data_engine.tar_groups import Finding
from mmzoo.errors import EXIT_OK, CommandParser, InputError

ROWS_SHOWN = 20  # of the table
KINDS = ("images", CODES, "records")


@dataclass(frozen=True, slots=True)
class RepairSummary:
    """What came of it: kept + left_out = found, in samples of the tars; `lost` are those that only the index knows.

    `repairs` empty: nothing was wrong, and nothing was written.
    """

    shards: str
    output: str
    found: int
    kept: int
    left_out: int
    lost: int
    redrawn: int
    repairs: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class RepairSettings:
    """What to repair, into which new folder. `shard_bytes` None: as the index says. See RepairJob, RepairPlan."""

    source: Path
    output: Path
    shard_bytes: int | None = None
    val_fraction: float | None = None
    group: str | None = None
    unknown_left_out: bool = False


def repair(settings: RepairSettings) -> RepairSummary:
    """Repairs a shard folder. InputError, and nothing left behind: what no repair can judge; no sound sample."""
    _check(settings)
    source, output = settings.source, settings.output
    content = _believed(source)
    plan = RepairPlan(
        kind=content["kind"] if content else None,
        codes=codes_field(content, []),
        unknown_left_out=settings.unknown_left_out,
    )
    fraction = settings.val_fraction
    if fraction is None:
        fraction = ((content or {}).get("splits") or {}).get("val_fraction")
    known = indexed_splits(source, content)
    if fraction is None and not known:  # before hours of reading; of single samples it is known only afterwards
        raise lost_splits("the")
    findings = lint_folder(source, plan.visit, resync=True)
    lost = lost_samples(source, content, plan.keys)
    counts = _counts(plan, lost)
    if not findings and not counts["left_out"]:
        return RepairSummary(str(source), str(output), **counts, redrawn=0, repairs=[])
    if not plan.kept:
        raise InputError(f"none of the {plan.found} samples in {source} is sound. Build them again: mmzoo data build")
    gone = [Repair(shard, None, None, LOST, "listed in the index, in no tar", n) for shard, n in lost.items()]
    repairs = [*plan.finished(findings), *gone]
    size = settings.shard_bytes or _old_size(content)
    with replaced_folder(output, overwrite=False) as folder:
        job = RepairJob(source, content, folder, output.resolve().name, size, known, fraction, settings.group)
        try:
            redrawn = write_repaired(job, plan, repairs, counts)
        except OSError as fault:
            raise InputError(f"{fault.filename or output}: {fault.strerror}. Free space and run again") from None
    lines = [each.as_json() for each in repairs]
    return RepairSummary(str(source), str(output), **counts, redrawn=redrawn, repairs=lines)


def _check(settings: RepairSettings) -> None:
    source, output = settings.source, settings.output
    if settings.val_fraction is not None and not 0 <= settings.val_fraction <= 1:
        raise InputError(f"--val-fraction {settings.val_fraction} is not between 0 and 1")
    if not source.is_dir() or not any(source.glob("*.tar")):
        raise InputError(f"no shards (*.tar) in a folder at {source}. Name the folder that `mmzoo data build` wrote")
    if source.resolve() in (output.resolve(), *output.resolve().parents):
        raise InputError(f"the output {output} would lie in the shards themselves. Name a folder beside them")
    check_output(output, overwrite=False)


def _counts(plan: RepairPlan, lost: Mapping[str, int]) -> dict[str, int]:
    left_out = plan.found - len(plan.kept)
    return {"found": plan.found, "kept": len(plan.kept), "left_out": left_out, "lost": sum(lost.values())}


def _believed(source: Path) -> dict[str, Any] | None:
    """The content of the index where it can be believed. InputError: it is of another schema, or kind."""
    tars = sorted(tar.name for tar in source.glob("*.tar"))
    file = source / INDEX_FOLDER / INDEX_FILE
    try:
        version = json.loads(file.read_bytes())["schema_version"]
    except (OSError, ValueError, LookupError, TypeError):
        version = INDEX_SCHEMA
    if isinstance(version, int) and version != INDEX_SCHEMA:
        raise InputError(
            f"{file} has schema version {version}, this mmzoo knows {INDEX_SCHEMA}. Update mmzoo; if the file is "
            "damaged, move it away and repair again"
        )
    content = lint_index(source, tars, [])
    if content is not None and content.get("kind") not in KINDS:
        raise InputError(f"{file} names the kind {content.get('kind')!r}, known are {', '.join(KINDS)}. Update mmzoo")
    faults: list[Finding] = []
    codes_field(content, faults)
    if faults:
        raise InputError(f"{file}: {faults[0].what}")
    return content


def _old_size(content: Mapping[str, Any] | None) -> int:
    """Size of a shard as the index says it was asked for, or else the default of builds, in bytes."""
    size = ((content or {}).get("arguments") or {}).get("shard_bytes")
    return size if isinstance(size, int) and size > 0 else SHARD_BYTES


def table(repairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The repairs as lines with columns, what is gone first."""
    order = [LOST, LEFT_OUT, COPY_LEFT_OUT, MENDED]
    rows = sorted(repairs, key=lambda each: order.index(each["action"]))
    cells = [("shard", "key", "action", "why")]
    for each in rows[:ROWS_SHOWN]:
        action = f"{each['action']} {each['samples']}" if "samples" in each else each["action"]
        cells.append((each["shard"], each["key"] or "-", action, " ".join(each["why"].split())))
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    lines = [
        "  ".join([*(f"{text:<{width}}" for text, width in zip(row[:3], widths, strict=True)), row[3]]) for row in cells
    ]
    return lines + ([f"... and {len(rows) - ROWS_SHOWN} more, see {REPAIRS_FILE}"] if len(rows) > ROWS_SHOWN else [])


def summary_text(summary: RepairSummary) -> str:
    """The summary for people."""
    if not summary.repairs:
        return f"nothing to repair: all {summary.found} samples of {summary.shards} are sound. Nothing was written"
    lines = table(summary.repairs)
    lines.append(f"{summary.found} samples found = {summary.kept} kept + {summary.left_out} left out: {summary.output}")
    lines += [f"{summary.lost} more are in the index and in no tar"] if summary.lost else []
    lines += [f"{summary.redrawn} got their split by hash: the index does not know it"] if summary.redrawn else []
    return "\n".join(lines)


def main(argv: Sequence[str], prog: str) -> int:
    """`mmzoo data repair`."""
    parser = CommandParser(prog=prog, description=__doc__)
    add = parser.add_argument
    add("shards", type=Path, help="shard folder in which `mmzoo data lint` finds something")
    add("-o", "--output", "--out", type=Path, required=True, metavar="NEW", help="new folder, beside the shards")
    add("--shard-size", help="size that a shard stays below (default: as the index says, else 256MB)")
    add("--val-fraction", type=float, help="share of the split val, where the index is lost: as the build had it")
    add("--group", metavar="REGEX", help="what stays in one split, where the index is lost: as the build had it")
    add("--leave-out-unknown", action="store_true", help="leave out samples of an unknown schema version")
    add("--json", action="store_true", help="print what was done as JSON on stdout")
    given = parser.parse_args(argv)
    size = byte_size(given.shard_size) if given.shard_size else None
    settings = RepairSettings(
        given.shards, given.output, size, given.val_fraction, given.group, given.leave_out_unknown
    )
    with quiet_pillow():
        summary = repair(settings)
    if given.json:
        sys.stdout.write(json.dumps(asdict(summary), indent=1) + "\n")
    else:
        sys.stderr.write(summary_text(summary) + "\n")
    return EXIT_OK

"""`mmzoo leaderboard build`: records in, one folder out that can be sent, served or committed as it is.

OUT/leaderboard.json  .csv  .md  .html     OUT/records/MODEL-HASH/record.json and its sample log
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from eval_suites.leaderboard.files import RECORDS, csv_text, json_text, markdown_text
from eval_suites.leaderboard.gathering import Entry, Superseded, gather
from eval_suites.leaderboard.page import html_text
from eval_suites.leaderboard.tables import Table, make_tables
from eval_suites.record import RECORD_FILE
from mmzoo.durable_files import flush, refused_writes_named, temporary_sibling
from mmzoo.errors import CommandParser, InputError

NAME = "leaderboard"
OURS = re.compile(rf"{NAME}\.(json|csv|md|html)|{RECORDS}(/[^/]+(/({RECORD_FILE}|[^/]+\.jsonl))?)?")


def check_output(out: Path) -> None:
    """InputError when `out` is something else than a new or empty folder or an earlier leaderboard."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file. Name a folder.")
    names = [path.relative_to(out).as_posix() for path in sorted(out.rglob("*"))] if out.exists() else []
    strange = next((name for name in names if not OURS.fullmatch(name)), None)
    if strange is not None or (names and f"{NAME}.json" not in names):
        raise InputError(f"--out {out} holds {strange or names[0]}, which is no leaderboard's. Name another folder.")


def write_folder(out: Path, tables: Sequence[Table], superseded: Sequence[Superseded]) -> None:
    """Writes everything beside its place, then puts it there in one step. InputError: the system refuses to write."""
    out = out.resolve()
    building, earlier = temporary_sibling(out), temporary_sibling(out)
    try:
        with refused_writes_named(out):
            building.mkdir(parents=True)
            _write(building, tables, superseded)
            if out.exists():
                out.rename(earlier)
            building.rename(out)
            flush(out.parent)
    except BaseException:
        if earlier.exists() and not out.exists():
            earlier.rename(out)
        raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(earlier, ignore_errors=True)


def _write(folder: Path, tables: Sequence[Table], superseded: Sequence[Superseded]) -> None:
    texts = {
        "json": json_text(tables, superseded),
        "csv": csv_text(tables),
        "md": markdown_text(tables, superseded),
        "html": html_text(tables, superseded),
    }
    for suffix, text in texts.items():
        (folder / f"{NAME}.{suffix}").write_text(text, encoding="utf-8")
    for entry in (row.entry for table in tables for row in table.rows):
        _copy(entry, folder / RECORDS / entry.folder_name)


def _copy(entry: Entry, target: Path) -> None:
    target.mkdir(parents=True)
    shutil.copyfile(entry.path, target / RECORD_FILE)
    shutil.copyfile(entry.path.parent / entry.record.samples.file, target / entry.record.samples.file)


def main(argv: list[str], prog: str) -> int:
    """`mmzoo leaderboard build RECORDS... --out DIR`."""
    parser = CommandParser(
        prog=prog, description="Make tables of the records of evaluations: JSON, CSV, Markdown, HTML."
    )
    parser.add_argument("records", nargs="+", type=Path, help="record files, or folders that hold them at any depth")
    parser.add_argument("--out", type=Path, required=True, help="folder; an earlier leaderboard there is replaced")
    arguments = parser.parse_args(argv)
    check_output(arguments.out)
    entries, superseded = gather(arguments.records, arguments.out)
    tables = make_tables(entries)
    write_folder(arguments.out, tables, superseded)
    for one in superseded:
        sys.stderr.write(f"{one.old.path} is superseded by {one.new.path}\n")
    for table in tables:
        count = f"{len(table.rows)} model{'s' if len(table.rows) != 1 else ''}"
        sys.stderr.write(f"{table.suite.name} {table.suite.version}, {table.data.name}: {count}\n")
    sys.stdout.write(f"{arguments.out / NAME}.html\n")
    return 0

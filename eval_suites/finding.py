"""Finds the suites: every folder here with a `suite.py`; and `mmzoo eval list`, which shows them. Torch-free."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from eval_suites.description import Suite
from mmzoo.errors import CommandParser, InputError, suggestion

HERE = Path(__file__).parent


def find_suites() -> dict[str, Suite]:
    """All suites by name. InputError: a `suite.py` without a Suite, or one of another name than its folder."""
    found = {}
    for file in sorted(HERE.glob("*/suite.py")):
        module = importlib.import_module(f"{__package__}.{file.parent.name}.suite")
        suite = getattr(module, "suite", None)
        if not isinstance(suite, Suite) or suite.name != file.parent.name:
            raise InputError(f"{file} needs `suite = Suite(...)` with the folder's name, {file.parent.name!r}.")
        found[suite.name] = suite
    return found


def get_suite(name: str) -> Suite:
    """The suite of that name; `-` and `_`, upper and lower case are the same. InputError with the nearest name."""
    found = find_suites()
    plain = name.replace("-", "_").lower()
    if plain not in found:
        raise InputError(f"unknown suite {name!r}.{suggestion(plain, found)} See: mmzoo eval list")
    return found[plain]


def _as_record(suite: Suite) -> dict[str, Any]:
    return {
        "name": suite.name,
        "version": suite.version,
        "title": suite.title,
        "metrics": list(suite.metrics),
        "group": suite.unit,
        "options": {option.name: option.help for option in suite.options},
    }


def main(argv: list[str], prog: str) -> int:
    """`mmzoo eval list [--json]`."""
    parser = CommandParser(prog=prog, description="List the evaluation suites.")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args(argv)
    suites = list(find_suites().values())
    if arguments.json:
        sys.stdout.write(json.dumps({"suites": [_as_record(suite) for suite in suites]}, indent=1) + "\n")
        return 0
    for suite in suites:
        sys.stdout.write(f"{suite.name}, version {suite.version}: {suite.title}\n")
        sys.stdout.write(f"  metrics {', '.join(suite.metrics)}\n")
        width = max((len(option.name) for option in suite.options), default=0)
        for option in suite.options:
            sys.stdout.write(f"  --{option.name:<{width}}  {option.help}\n")
    return 0

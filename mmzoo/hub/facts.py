"""What a published model folder says of its making: picked from a run record, and without the machine's paths."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

#: Entries of a run record (`run.json` and what the saver adds) that are true of the weights wherever they are.
PUBLISHED = (
    "variant",
    "licence",
    "command",
    "data",
    "step",
    "seed",
    "config_sha256",
    "git_commit",
    "resumed_from",
    "metrics",
    "samples",
)
#: An absolute path or one below a home folder, at the start of a word or after = , [ { ( " '. Not inside a URL.
LOCAL_PATH = re.compile(r"(?P<before>^|[\s=,\[{(\"':])(?:file://)?~?/(?!/)(?P<path>[^\s,\]})\"':=]+)")


def published_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """`variant`, `started_from` and `run` of zoo.json. `record`: see save_model."""
    run = {name: record[name] for name in PUBLISHED if record.get(name) not in (None, {})}
    if "command" in run:
        run["command"] = command_without_paths(str(run["command"]))
    variant, licence = run.pop("variant", None), run.pop("licence", None)
    facts = {"variant": variant, "licence": licence, "started_from": record.get("receipts") or [], "run": run}
    return {name: plain(value) for name, value in facts.items()}


def plain(value: Any) -> Any:
    """JSON values with paths cut to names; NaN and infinities, which JSON lacks, as words."""
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int):
        return value
    return name_of(str(value))


def name_of(text: str) -> str:
    """A path's last part; in other text, every absolute path cut to its last part."""
    if text.startswith(("/", "~/")) and not re.search(r"[,\[\]{}]", text):
        return PurePosixPath(text).name or text
    return LOCAL_PATH.sub(lambda found: found["before"] + PurePosixPath(found["path"]).name, text)


def command_without_paths(command: str) -> str:
    """A shell command with absolute paths cut to names, also those with spaces in them; relative ones stay."""
    try:
        words = shlex.split(command)
    except ValueError:
        return name_of(command)
    cut = []
    for word in words:
        option, equals, value = word.partition("=")
        cut.append(name_of(option) + equals + name_of(value))
    return shlex.join(cut)

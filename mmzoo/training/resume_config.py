"""What a resumed run takes from its checkpoint, and what the user changed since.

Precedence: command line > config files > the config of the checkpoint. So `--ckpt_path` needs no config file, and a
value that was once given on the command line holds until it is given again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode

from mmzoo.errors import InputError
from mmzoo.training.checkpoint_folder import BEST, CONFIG_FILE, LAST, finished, resolve_checkpoint
from mmzoo.training.config_files import empty, read_config, text_of

#: What an evaluation takes over; devices and the like are its own command's business. A training takes all.
OF_EVALUATIONS = ("seed_everything", "model", "data")
#: Keys that belong to one start, not to the training.
OF_ONE_START = ("run", "ckpt_path", "init_from", "allow_changes", "skip_steps", "trainer.default_root_dir")


def find_checkpoint(given: str, run: str | None, config: str | None) -> Path:
    """The folder that `--ckpt_path` means: a path, or `last`/`best` of the run.

    Without a run, `last` and `best` mean the only run in `runs/` that was started from this config and has a
    checkpoint. InputError when there is none, or several.
    """
    if given not in (LAST, BEST):
        return Path(given)
    if run:
        return Path(run) / "checkpoints" / given
    stem = re.sub(r"\.ya?ml$", "", Path(config).name) if config else None
    runs = [path for path in sorted(Path("runs").glob("*")) if finished(path / "checkpoints")]
    if stem is not None:
        runs = [path for path in runs if re.fullmatch(rf"{re.escape(stem)}-\d{{8}}-\d{{6}}", path.name)]
    if len(runs) == 1:
        return runs[0] / "checkpoints" / given
    known = f": {len(runs)} runs have checkpoints, the newest is {runs[-1]}" if runs else ""
    raise InputError(f"--ckpt_path {given} needs to know the run{known}. Add --run {runs[-1] if runs else 'runs/NAME'}")


def checkpoint_config(folder: Path, verb: str) -> MappingNode:
    """The part of a checkpoint's config that this verb takes over; empty where the checkpoint holds none."""
    file = folder / CONFIG_FILE
    config = read_config(file) if file.is_file() else empty(str(file))
    pairs = [
        (key, value)
        for key, value in config.value
        if (key.value not in OF_ONE_START if verb == "fit" else key.value in OF_EVALUATIONS)
    ]
    for _, value in pairs:
        if isinstance(value, MappingNode):
            value.value = [pair for pair in value.value if pair[0].value != "default_root_dir"]
    return MappingNode(config.tag, pairs, config.start_mark, config.end_mark)


def asked_checkpoint(config: MappingNode, names: list[str]) -> Path | None:
    """The folder that a config with all its flags resumes from, or None. InputError when there is no such folder."""
    given = text_of(config, "ckpt_path")
    if given in (None, "", "null") or text_of(config, "init_from") not in (None, "", "null"):
        return None
    folder = find_checkpoint(str(given), text_of(config, "run"), names[-1] if names else None)
    return folder if (folder / CONFIG_FILE).is_file() else resolve_checkpoint(folder)  # which says what is wrong


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(dotted key, value in the checkpoint, value now) of every setting that differs; absent counts as None."""
    old, new = _flat(before), _flat(now)
    return [
        (key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key.partition(".")[0] not in OF_ONE_START and key not in OF_ONE_START
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found.update(_flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value})
    return found


def difference_table(rows: list[tuple[str, Any, Any]]) -> str:
    """The differences for people: one line each."""
    lines = [("setting", "checkpoint", "now"), *((key, _short(old), _short(new)) for key, old, new in rows)]
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return "".join(f"  {key:<{widths[0]}}  {old:<{widths[1]}}  {new}\n" for key, old, new in lines)


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def changes_since(checkpoint: Path, config: str) -> list[tuple[str, Any, Any]]:
    """What this start's full config (YAML text) changes against the checkpoint's."""
    file = checkpoint / CONFIG_FILE
    if not file.is_file():
        return []
    before = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    return differences(before, yaml.safe_load(config) or {})


def step_ranges(text: str | None) -> list[tuple[int, int]]:
    """ "120..140,300..310" as pairs, both ends included. InputError for anything else."""
    found = []
    for part in (text or "").split(","):
        if not part.strip():
            continue
        match = re.fullmatch(r"\s*(\d+)\.\.(\d+)\s*", part)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"--skip_steps {part.strip()!r} is not a range of steps. Write for example 120..140")
        found.append((int(match[1]), int(match[2])))
    return found


def consents(text: str | None, known: tuple[str, ...]) -> list[str]:
    """The names in `--allow_changes a,b`. InputError for an unknown one."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise InputError(f"--allow_changes {name}: known are {', '.join(known)}.")
    return names

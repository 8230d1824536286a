"""The run folder: its name, the config of every start, and `run.json`: what was run, on what, how it ended.

runs/NAME/   config.yaml  config.<UTC time>.yaml  run.json  metrics.csv  tensorboard/  images/  checkpoints/  earlier/
             data_steps.json (what each step consumed)  quarantine.jsonl (broken samples, when there are any)
             .lock (while a training runs: mmzoo.folder_lock)
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_engine.quarantine import QUARANTINE_FILE
from mmzoo.durable_files import refused_writes_named, write_text
from mmzoo.environment import git_commit, hardware, versions
from mmzoo.errors import InputError
from mmzoo.training.run_files import CONFIG_FILE, DATA_STEPS_FILE, RECORD_FILE

SCHEMA = 1
#: What a fresh start in a used run folder moves away, so that two trainings never mix.
OUTCOMES = ("checkpoints", "metrics.csv", "tensorboard", "images", RECORD_FILE, DATA_STEPS_FILE, QUARANTINE_FILE)

#: What only a run has: a folder with files and none of these is somebody else's.
MARKS = (
    *(RECORD_FILE, DATA_STEPS_FILE, "checkpoints", "earlier"),
    *(f"{verb}/{RECORD_FILE}" for verb in ("validate", "test", "predict")),
)


def timestamp() -> str:
    """UTC time for file names, to the microsecond so that two starts never share one."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def default_name(config: str | None) -> str:
    """Run name from the last config file and the time: "tiny-demo-20261124-013000"."""
    stem = Path(config).name.removesuffix(".yaml").removesuffix(".yml") if config else "run"
    return f"{stem}-{datetime.now(UTC).strftime('%Y%m%d-%H%M%S')}"


def refuse_foreign(folder: Path) -> None:
    """InputError: a folder that holds something (hidden files do not count), and is no run folder."""
    try:
        held = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return
    except OSError as fault:
        raise InputError(
            f"the run folder {folder} cannot be read ({fault.strerror}). Choose another with --run"
        ) from None
    # A run that was killed before its record has the dated copy of its config.
    ours = any((folder / mark).exists() for mark in MARKS) or any(folder.glob("config.*T*.yaml"))
    if held and not ours:
        raise InputError(
            f"{folder} is not empty and no run folder: it holds {', '.join(held[:3])}{', ...' if held[3:] else ''}. "
            f"Choose a new one with --run"
        )


@contextmanager
def run_folder(folder: Path) -> Iterator[None]:
    """Creates the run folder and proves that it can be written; InputError otherwise.

    When the block ends with nothing written, what was created here goes again, the parents too.
    """
    created = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".writable.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as fault:
            raise InputError(
                f"the run folder {folder} cannot be written ({fault.strerror}). Choose another with --run."
            ) from fault
        yield
    finally:
        with suppress(OSError):  # the first that is not empty, or not there, ends it
            for place in created:
                place.rmdir()


def set_aside(folder: Path) -> Path | None:
    """Moves the outcome of an earlier training in this folder to `earlier/<time>/`; None when there was none."""
    present = [name for name in OUTCOMES if (folder / name).exists()]
    if not present:
        return None
    place = folder / "earlier" / timestamp()
    place.mkdir(parents=True)
    for name in present:
        (folder / name).rename(place / name)
    return place


def save_config(folder: Path, text: str) -> None:
    """Writes the full config of this start under its time, and as `config.yaml`, the latest."""
    write_text(folder / f"config.{timestamp()}.yaml", text)
    write_text(folder / CONFIG_FILE, text)


class RunRecord:
    """`run.json`: written when a run starts, completed when it ends, however it ends."""

    def __init__(self, folder: Path, verb: str, arguments: list[str], config: str) -> None:
        self._path = folder / RECORD_FILE
        self._start = time.monotonic()
        self.content: dict[str, Any] = {
            "schema": SCHEMA,
            "status": "running",
            "verb": verb,
            "command": shlex.join(["mmzoo", verb, *arguments]),
            "working_directory": str(Path.cwd()),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
            "versions": versions(),
            "hardware": hardware(),
            "git_commit": git_commit(),
            "python_executable": sys.executable,
        }

    def write(self, **values: Any) -> None:
        """Adds values and writes the file in one step."""
        self.content.update(values)
        with refused_writes_named(self._path):
            write_text(self._path, json.dumps(self.content, indent=1, default=str) + "\n")

    def end(self, status: str, steps: int, metrics: Mapping[str, Any], **values: Any) -> None:
        """status: "finished", "failed" or "interrupted". Wall time in seconds."""
        self.write(
            status=status,
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
            wall_seconds=round(time.monotonic() - self._start, 3),
            steps=steps,
            metrics={name: float(value) for name, value in sorted(metrics.items())},
            **values,
        )

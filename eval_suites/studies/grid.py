"""A grid of steps, each a command or a function that fills one folder. What is done is not done again.

A step is done when its folder holds `done.json` with the step's own description; anything else in its place (a killed
step, one of other settings) is removed and made anew. A step whose settings change takes those that need it along.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmzoo.durable_files import write_text
from mmzoo.errors import InputError

DONE = "done.json"


@dataclass(frozen=True)
class Step:
    """`name`: its folder under the grid's. `settings`: all that its outcome depends on, as plain JSON values.

    `work(folder)` fills a folder; `needs` are the names of earlier steps.
    """

    name: str
    settings: Mapping[str, Any]
    work: Callable[[Path], None]
    needs: tuple[str, ...] = field(default=())


def run_grid(folder: Path, steps: Sequence[Step]) -> dict[str, Path]:
    """Makes what is missing, in the order given; the folder of each step by name. Killed, it goes on where it was."""
    digests: dict[str, str] = {}
    places: dict[str, Path] = {}
    for number, step in enumerate(steps, 1):
        if missing := [name for name in step.needs if name not in digests]:
            raise ValueError(f"step {step.name!r} needs {missing}, which no earlier step makes")
        digests[step.name] = _digest(step, digests)
        place = places[step.name] = folder / step.name
        if _is_done(place, digests[step.name]):
            continue
        sys.stderr.write(f"[{number}/{len(steps)}] {step.name}\n")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        started = time.perf_counter()
        step.work(place)
        seconds = round(time.perf_counter() - started, 1)
        record = {"digest": digests[step.name], "settings": step.settings, "seconds": seconds}
        write_text(place / DONE, json.dumps(record, indent=1) + "\n")
    return places


def mmzoo(arguments: Sequence[object]) -> None:
    """Runs `mmzoo ...` in its own process, without the Hub. InputError, RuntimeError: as it ended."""
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "HF_HUB_OFFLINE": "1"}
    line = " ".join(map(str, arguments))
    code = subprocess.run(
        [sys.executable, "-m", "mmzoo", *map(str, arguments)], env=environment, stdout=sys.stderr, check=False
    ).returncode
    if code == 2:
        raise InputError(f"`mmzoo {line}` was refused; the line above says why.")
    if code:
        raise RuntimeError(f"`mmzoo {line}` ended with exit code {code}; the lines above say why")


def _digest(step: Step, before: Mapping[str, str]) -> str:
    text = json.dumps([step.settings, [before[name] for name in step.needs]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_done(place: Path, digest: str) -> bool:
    try:
        return json.loads((place / DONE).read_text(encoding="utf-8"))["digest"] == digest
    except (OSError, ValueError, KeyError, TypeError):
        return False

"""`mmzoo demo [FAMILY]`: a family shows itself, from files to a reloaded model, by the commands that a user would type.

The front door prepares the folder and runs the verbs; what is shown is the family's own (`Family.demo`).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from mmzoo.errors import EXIT_FAULT, EXIT_OK, EXIT_USER_INPUT, CommandParser, InputError
from mmzoo.families import Family, find_families, get_family, load_object

#: Its presence says that everything beside it was made by a demo and may be made again.
MARKER = ".mmzoo-demo"


@dataclass
class Demo:
    """What a family's demo is handed: `images`, the user's folder or None; `out`, an empty folder for everything."""

    family: Family
    images: Path | None
    out: Path
    steps: int | None  #: updates of each training; None = what the demo's configs say
    command: str  #: the line that makes this demo again
    seconds: dict[str, float] = field(default_factory=dict)  #: wall time of every step that was run, by its name

    def run(self, step: str, *arguments: str | Path) -> None:
        """Runs `mmzoo ARGUMENTS` in a process of its own, without network; InputError when it refuses or fails."""
        line = shlex.join(["mmzoo", *map(str, arguments)])
        sys.stderr.write(f"\n$ {line}\n")
        sys.stderr.flush()
        start = time.perf_counter()
        # Threads that spin while they wait for each other crawl on a machine that has other work to do.
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "HF_HUB_OFFLINE": "1"}
        code = subprocess.run(
            [sys.executable, "-m", "mmzoo", *map(str, arguments)], env=environment, stdout=sys.stderr, check=False
        ).returncode
        self.seconds[step] = time.perf_counter() - start
        if code == EXIT_USER_INPUT:
            raise InputError(f"the demo stopped at `{line}`; the line above says why.")
        if code != EXIT_OK:
            raise RuntimeError(f"`{line}` ended with exit code {code}; the lines above say why")

    def suite(self) -> ModuleType:
        """The measuring module of the family's first eval suite, for a demo that measures with it."""
        return load_object(f"eval_suites.{self.family.suites[0]}.measure")


def main(argv: list[str], prog: str) -> int:
    """`mmzoo demo [FAMILY] [--images FOLDER] [--out FOLDER]`."""
    parser = CommandParser(
        prog=prog, description="Train, measure and reload a small model in minutes; writes OUT/report.html."
    )
    parser.add_argument("family", nargs="?", help="default: the first family that has a demo")
    parser.add_argument("--images", type=Path, help="folder of images, where a demo takes some (default: its own)")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for everything (runs/demo)")
    parser.add_argument("--steps", type=int, help="updates of each training (default: what the demo's configs say)")
    arguments = parser.parse_args(argv)
    if arguments.steps is not None and arguments.steps < 1:
        raise InputError(f"--steps {arguments.steps}: give 1 or more, or leave it out.")
    family = _family(arguments.family)
    images = arguments.images
    if images is not None:
        if not images.is_dir():
            raise InputError(f"there is no folder {images}. Give the folder that holds the images.")
        if arguments.out.resolve() in (images.resolve(), *images.resolve().parents):
            raise InputError(f"--out {arguments.out} holds the images themselves. Name another folder.")
    earlier = prepare_folder(arguments.out)
    demo = Demo(family, images, arguments.out, arguments.steps, shlex.join([*prog.split(), *argv]))
    try:
        report = load_object(family.demo or "")(demo)
    except (InputError, KeyboardInterrupt):
        put_back(arguments.out, earlier)
        raise
    except RuntimeError as fault:  # what it left is kept: it shows what went wrong
        sys.stderr.write(f"{prog}: {fault}\n")
        return EXIT_FAULT
    if (earlier / MARKER).is_file():
        shutil.rmtree(earlier)
    sys.stderr.write(f"\nreport: {report}\n")
    return EXIT_OK


def _family(name: str | None) -> Family:
    if name is not None:
        family = get_family(name)
        if family.demo is None:
            raise InputError(f"the family {family.name!r} has no demo. Those that have one: {', '.join(_with_demo())}.")
        return family
    return find_families()[_with_demo()[0]].family


def _with_demo() -> list[str]:
    return [name for name, entry in find_families().items() if entry.family.demo is not None]


def prepare_folder(out: Path) -> Path:
    """Makes `out` empty, if it is new, empty, or an earlier demo's; InputError otherwise.

    Returns where the earlier demo waits until the new one has ended well; nothing is there when there was none.
    """
    place = out.resolve()
    earlier = place.with_name(f".{place.name}.earlier")
    try:
        if out.is_dir() and any(out.iterdir()):
            if not (out / MARKER).is_file():
                raise InputError(f"{out} holds something else. Give --out another folder.")
            if (earlier / MARKER).is_file():  # a demo was killed: what waits is whole, what is here is not
                shutil.rmtree(place)
            else:
                place.rename(earlier)
        place.mkdir(parents=True, exist_ok=True)
        (out / MARKER).touch()
    except OSError as fault:
        raise InputError(f"{out} cannot be written ({fault.strerror}). Give --out another folder.") from fault
    return earlier


def put_back(out: Path, earlier: Path) -> None:
    """Removes what an unfinished demo made, and gives the earlier one its place again."""
    place = out.resolve()
    shutil.rmtree(place)
    if (earlier / MARKER).is_file():
        earlier.rename(place)

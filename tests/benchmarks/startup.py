"""How long the command takes to answer, as a user starts it, beside the `transformers` command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.benchmarks.record import Comparison
from tests.benchmarks.timing import Contender, interleaved

ROUNDS = 5
MOST_SECONDS, LEAST_RATIO = 0.15, 20.0
COMMANDS = {
    "mmzoo --help": "usage: mmzoo VERB",
    "mmzoo families": "evotok",
    "transformers --help": "transformers",
}


def answer(command: str) -> str:
    """stdout of a command of this environment. AssertionError when it fails."""
    program, *arguments = command.split()
    path = Path(sys.executable).parent / program
    done = subprocess.run([str(path), *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command} exits with {done.returncode}: {done.stderr[-500:]}"
    return done.stdout


def compare() -> list[Comparison]:
    """The bars are those of the design for `--help`; `families` is held to the same."""
    for command, words in COMMANDS.items():
        assert words.lower() in answer(command).lower(), f"{command} does not answer as it should"
    found = interleaved({name: Contender(lambda name=name: answer(name)) for name in COMMANDS}, ROUNDS)
    peer = "transformers --help"
    return [
        Comparison(name, peer, found[name], found[peer], at_least=LEAST_RATIO, at_most=MOST_SECONDS)
        for name in COMMANDS
        if name != peer
    ]

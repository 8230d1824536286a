"""The `mmzoo` command: finds the verb, imports only its module, and turns a user's mistake into one line.

Standard library only, so that `mmzoo --help` answers at once. stdout carries data; everything else goes to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from mmzoo import __version__
from mmzoo.errors import EXIT_FAULT, EXIT_OK, EXIT_USER_INPUT, InputError, suggestion
from mmzoo.families import Command, find_commands, load_object

VERBS: dict[str, Command] = {
    "families": Command("mmzoo.families:main", "list the model families and their variants"),
    "demo": Command("mmzoo.demo:main", "train, measure and reload a small model in minutes, with a report"),
    "fit": Command("mmzoo.training.cli:main", "train a model from a YAML config"),
    "validate": Command("mmzoo.training.cli:main", "run the validation loop of a config"),
    "test": Command("mmzoo.training.cli:main", "run the test loop of a config"),
    "predict": Command("mmzoo.training.cli:main", "run the prediction loop of a config"),
    "data build": Command("data_engine.build:main", "turn files into webdataset shards with an index"),
    "data inspect": Command("data_engine.look:inspect", "show what shards hold"),
    "data lint": Command("data_engine.look:lint", "prove that every sample of the shards is sound"),
    "data repair": Command("data_engine.repair:main", "write what is sound in damaged shards as new ones"),
    "data stats": Command("data_engine.stats:main", "count samples; histograms of sizes and lengths"),
    "data preview": Command("data_engine.preview:main", "one page: composition, histograms, samples"),
    "data clean": Command("data_engine.quality.clean:main", "list copies, test data and what filters refuse"),
    "data reshard": Command("data_engine.reshard:main", "write shards anew: other sizes, samples left out"),
    "data merge": Command("data_engine.reshard:main", "write several shard folders as one"),
    "data why": Command("mmzoo.training.data_why:main", "show the samples that a training step consumed"),
    "models info": Command("mmzoo.hub.info:main", "count the parameters of a model, without building it"),
    "models import": Command("mmzoo.hub.official:import_main", "turn the authors' checkpoint into a model folder"),
    "models export": Command("mmzoo.hub.official:export_main", "turn a model folder into the authors' layout"),
    "models push": Command("mmzoo.hub.push:main", "upload a model folder to the Hugging Face Hub"),
    "eval list": Command("eval_suites.finding:main", "list the evaluation suites, their versions and metrics"),
    "eval run": Command("eval_suites.runner:main", "measure a model with a suite: a record and a sample log"),
    "leaderboard build": Command("eval_suites.leaderboard.command:main", "make tables and a page of records"),
}


def all_verbs() -> dict[str, Command]:
    """The verbs above and those that families and suites bring along."""
    verbs = dict(VERBS)
    for name, command in find_commands().items():
        if name in VERBS:
            raise InputError(
                f"the verb {name!r} of {command.target} hides one of mmzoo's own. Rename it in its commands table."
            )
        verbs[name] = command
    return verbs


def help_text(verbs: dict[str, Command]) -> str:
    """What `mmzoo --help` prints."""
    width = max(map(len, verbs))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in verbs.items()]
    return "\n".join(
        [
            "usage: mmzoo VERB [options]      (mmzoo VERB --help explains one verb)",
            "",
            "Multimodal research models: trained, resumed, scored and published with the same few commands.",
            "",
            *lines,
            "",
            "  --version  print the version",
            "",
        ]
    )


def group_of(word: str, verbs: dict[str, Command]) -> dict[str, Command]:
    """The verbs of two words that start with this one, e.g. "data"."""
    return {name: command for name, command in verbs.items() if name.startswith(f"{word} ")}


def split_verb(arguments: Sequence[str], verbs: dict[str, Command]) -> tuple[str, list[str]]:
    """The verb (one or two words) at the start of the arguments, and what follows it."""
    for words in (2, 1):
        verb = " ".join(arguments[:words])
        if len(arguments) >= words and verb in verbs:
            return verb, list(arguments[words:])
    first = arguments[0]
    second_words = [verb.split()[1] for verb in group_of(first, verbs)]
    if second_words:
        given = arguments[1] if len(arguments) > 1 else ""
        if given == "":
            raise InputError(
                f"`mmzoo {first}` needs one of: {', '.join(second_words)}. Try: mmzoo {first} {second_words[0]} --help"
            )
        raise InputError(f"unknown verb '{first} {given}'.{suggestion(given, second_words)} See: mmzoo --help")
    raise InputError(f"unknown verb {first!r}.{suggestion(first, verbs)} See: mmzoo --help")


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; user mistakes arrive as InputError."""
    verbs = all_verbs()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(help_text(verbs))
        return EXIT_OK if arguments else EXIT_USER_INPUT
    if arguments[0] == "--version":
        sys.stdout.write(f"mmzoo {__version__}\n")
        return EXIT_OK
    if arguments[1:2] in (["-h"], ["--help"]) and (group := group_of(arguments[0], verbs)):
        sys.stdout.write(help_text(group))
        return EXIT_OK
    verb, rest = split_verb(arguments, verbs)
    return load_object(verbs[verb].target)(rest, f"mmzoo {verb}") or EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script: exit code 0, 1 (our fault, with a trace) or 2 (the user's input is wrong)."""
    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except InputError as mistake:
        sys.stderr.write(f"mmzoo: {mistake}\n")
        return EXIT_USER_INPUT
    except BrokenPipeError:
        # The reader of our output went away (`mmzoo families | head`): not a fault, and nothing left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAULT
    except KeyboardInterrupt:
        sys.stderr.write("mmzoo: interrupted\n")
        return 130

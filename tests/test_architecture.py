"""The rules of the house: who may import whom, no cycles, and a front door that answers without torch."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

from mmzoo import cli
from mmzoo.families import ROOMS, SUITE_ROOM

REPOSITORY = Path(__file__).parents[1]
CONTRACTS = REPOSITORY / ".importlinter"
#: The one import that runs backwards: `mmzoo.from_pretrained` is fetched when it is first asked for.
LAZY = ("mmzoo", "mmzoo.hub.load")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)


def root_packages() -> list[str]:
    settings = configparser.ConfigParser()
    settings.read(CONTRACTS)
    return settings["importlinter"]["root_packages"].split()


def test_import_contracts_hold() -> None:
    result = python("-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache")
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


def test_contracts_cover_every_room() -> None:
    assert {*ROOMS, SUITE_ROOM, "mmzoo", "data_engine"} == set(root_packages())


def test_no_cycles_between_files() -> None:
    graph = grimp.build_graph(*root_packages(), cache_dir=None, exclude_type_checking_imports=True)
    imports = {
        module: {target for target in graph.find_modules_directly_imported_by(module) if (module, target) != LAZY}
        for module in graph.modules
    }
    try:
        tuple(TopologicalSorter(imports).static_order())
    except CycleError as cycle:
        pytest.fail("these files import each other: " + " <- ".join(cycle.args[1]))


def test_shells_import_without_torch() -> None:
    modules = ["mmzoo", "mmzoo.cli"]
    for room, shell in [*((room, "family.py") for room in ROOMS), (SUITE_ROOM, "suite.py")]:
        modules += [f"{room}.{path.parent.name}.{path.stem}" for path in (REPOSITORY / room).glob(f"*/{shell}")]
    assert {"tokenizers_visual.evotok.family", "eval_suites.reconstruction.suite"} <= set(modules)
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = sorted({'torch', 'transformers', 'lightning'} & set(sys.modules))\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
    )
    result = python("-c", program)
    assert result.returncode == 0, result.stderr


def test_help_runs_without_torch() -> None:
    program = "import sys; sys.modules['torch'] = None; from mmzoo.cli import main; sys.exit(main(['--help']))"
    result = python("-c", program)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: mmzoo VERB")


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb, command in cli.all_verbs().items():
        assert any(line.split("  ")[1:2] == [verb] and command.help in line for line in text.splitlines()), verb


def test_a_group_of_verbs_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "--help"]) == 0
    text = capsys.readouterr().out
    assert "data lint" in text
    assert "models info" not in text


@pytest.mark.parametrize(
    "verb", [verb for verb in cli.all_verbs() if verb not in ("fit", "validate", "test", "predict")]
)
def test_unknown_options_are_one_line_that_names_the_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*verb.split(), "--no-such-option"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.endswith(f"See: mmzoo {verb} --help\n")


@pytest.mark.parametrize(
    ("words", "nearest"),
    [(["famlies"], "families"), (["ftt"], "fit"), (["data", "biuld"], "build"), (["recnstruct"], "reconstruct")],
)
def test_unknown_verb_names_the_nearest(words: list[str], nearest: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert f"Did you mean {nearest!r}?" in output.err
    assert output.err.count("\n") == 1

"""`mmzoo fit|validate|test|predict`: YAML configs in, a run folder out.

Configs are merged and checked by us first (config_files, config_check); what reaches LightningCLI is one YAML file and
the flags of the command line. Flags win over configs, configs over what a checkpoint remembers.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmzoo.errors import EXIT_OK, InputError

if TYPE_CHECKING:
    from yaml.nodes import MappingNode


def main(argv: list[str], prog: str) -> int:
    """Runs one verb; `prog` ends in it ("mmzoo fit"). Returns 0; user mistakes are raised as InputError."""
    configs, flags = split_configs(argv)
    asks_for_help = any(re.fullmatch(r"-h|--([\w.]+\.)?help(=.*)?", flag) for flag in flags)
    if not configs and not asks_for_help:
        raise InputError(f"which config? Try: {prog} -c FILE.yaml. See: {prog} --help")
    from mmzoo.training.config_files import compose, to_yaml

    config = compose(configs)  # before Lightning is imported: a missing file is reported at once
    from mmzoo.training.config_check import check_config, flags_as_config
    from mmzoo.training.config_files import merge
    from mmzoo.training.lightning_messages import silence
    from mmzoo.training.zoo_cli import ZooCLI, sections

    silence()
    verb = prog.split()[-1]
    check_config(merge(config, flags_as_config(flags)), sections(verb), prog)
    with _temporary_file(to_yaml(config)) as merged, _parser_errors(config):
        ZooCLI(verb, prog, argv, ["-c", str(merged), *flags], configs[-1] if configs else None)
    return EXIT_OK


def split_configs(argv: list[str]) -> tuple[list[str], list[str]]:
    """The values of -c/--config in order, and all other arguments."""
    configs: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word in ("-c", "--config"):
            value = next(words, None)
            if value is None:
                raise InputError(f"{word} needs a file. Try: {word} FILE.yaml")
            configs.append(value)
        elif word.startswith("--config="):
            configs.append(word.removeprefix("--config="))
        else:
            rest.append(word)
    return configs, rest


@contextlib.contextmanager
def _temporary_file(text: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mmzoo-") as folder:
        path = Path(folder) / "merged.yaml"
        path.write_text(text, encoding="utf-8")
        yield path


@contextlib.contextmanager
def _parser_errors(config: MappingNode) -> Iterator[None]:
    """Turns jsonargparse's error into one line that starts with the place of the key it names."""
    from jsonargparse import ArgumentError

    try:
        yield
    except ArgumentError as fault:
        raise InputError(one_line(str(fault), config)) from fault
    except SystemExit as ending:
        if ending.code not in (0, None):
            raise


def one_line(message: str, config: MappingNode) -> str:
    """A parser's message on one line, with file:line in front when it names a key of the config."""
    from mmzoo.training.config_files import locate, where

    text = " ".join(message.split()).removeprefix("error: ")
    text = text if len(text) <= 700 else text[:700] + " ..."
    for key in re.findall(r"[A-Za-z_]\w*(?:\.\w+)+", text):
        node = locate(config, key.split("."))
        if node is not None:
            return f"{where(node)}: {text}"
    return text

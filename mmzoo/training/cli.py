"""`mmzoo fit|validate|test|predict`: YAML configs in, a run folder out.

Configs are merged and checked by us first (config_files, config_check); what reaches LightningCLI is one YAML file and
the flags of the command line. Flags win over configs, configs over what a checkpoint remembers.
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmzoo.errors import EXIT_OK, InputError

if TYPE_CHECKING:
    from yaml.nodes import MappingNode


RESUME_OPTIONS = """\
  --allow_changes NAMES  on resume, consent to another data order: global_batch, seed, shards, mixture, packing
                         (several with commas)
  --skip_steps A..B      on resume, leave out the data that steps A to B would see
"""
#: Other spellings of flags.
SPELLINGS = {"--skip-steps": "--skip_steps", "--allow-changes": "--allow_changes"}


def main(argv: list[str], prog: str) -> int:
    """Runs one verb; `prog` ends in it ("mmzoo fit"). Returns 0; user mistakes are raised as InputError."""
    verb = prog.split()[-1]
    configs, flags = split_configs(argv)
    if "-h" in flags or "--help" in flags:
        sys.stdout.write(help_text(prog, verb))
        return EXIT_OK
    resumes = any(flag.partition("=")[0] == "--ckpt_path" for flag in flags)
    if not (configs or resumes or any(re.fullmatch(r"--[\w.]+\.help(=.*)?", flag) for flag in flags)):
        raise InputError(f"which config? Try: {prog} -c FILE.yaml. See: {prog} --help")
    from mmzoo.training.config_files import compose, to_yaml

    config = compose(configs)  # before Lightning is imported: a missing file is reported at once
    from mmzoo.training.config_check import check_config, flags_as_config
    from mmzoo.training.config_files import merge
    from mmzoo.training.lightning_messages import silence
    from mmzoo.training.mapping_flags import with_mapping_flags
    from mmzoo.training.resume_config import asked_checkpoint, checkpoint_config
    from mmzoo.training.zoo_cli import ZooCLI, sections

    silence()
    whole = merge(config, flags_as_config(flags))
    if (checkpoint := asked_checkpoint(whole, configs)) is not None:
        config = merge(checkpoint_config(checkpoint, verb), config)
        whole = merge(config, flags_as_config(flags))
    config, flags = with_mapping_flags(config, whole, flags)
    whole = merge(config, flags_as_config(flags))
    check_config(whole, sections(verb), prog)
    with _temporary_file(to_yaml(config)) as merged, _parser_errors(whole):
        ZooCLI(verb, prog, argv, ["-c", str(merged), *flags], configs[-1] if configs else None)
    return EXIT_OK


def help_text(prog: str, verb: str) -> str:
    """What `--help` prints: the options of every day. LightningCLI's own help is 300 lines and 5 s away."""
    purpose = {
        "fit": "Train a model; the run folder gets checkpoints, metrics.csv, tensorboard/, config.yaml and run.json.",
        "validate": "Measure a model on the validation split; prints the metrics as JSON.",
        "test": "Run the test steps of a config; prints the metrics as JSON.",
        "predict": "Run the prediction steps of a config.",
    }[verb]
    checkpoint = "resume from a checkpoint folder" if verb == "fit" else "load the weights of a checkpoint folder"
    resume_options = RESUME_OPTIONS if verb == "fit" else ""
    return f"""\
usage: {prog} -c CONFIG [-c CONFIG ...] [--KEY VALUE ...]

{purpose}

  -c, --config CONFIG    YAML file, or a shipped config such as evotok/tiny-demo; several are merged, later wins
  --KEY VALUE            any key of the config, e.g. --trainer.max_steps 100 --data.init_args.global_batch 16
  --run FOLDER           run folder (default: runs/CONFIG-TIME)
  --ckpt_path FOLDER     {checkpoint}; with --run (or one run only) also: last, best.
                         What neither flags nor configs say is taken from its config
{resume_options}  --init_from FOLDER     take the model's weights, and nothing else, from a checkpoint or model folder
  --print_config         print the merged config with every default, and stop
  --model.help CLASS     the options of a model class; the same for --data.help
"""


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
            name, equals, value = word.partition("=")
            rest.append(SPELLINGS.get(name, name) + equals + value)
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
    """A parser's message on one line, with file:line and the full name of the key in front where it names one.

    jsonargparse nests: 'Parser key "model": ... Parser key "lr": Expected a <class 'float'>. Got value: fast'.
    """
    from mmzoo.training.config_files import locate, where

    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", " ".join(message.split())).removeprefix("error: ")
    keys = re.findall(r'Parser key "([^"]+)":', text)
    if keys:
        reason = text.rpartition(f'Parser key "{keys[-1]}":')[2].strip()
        expected = re.search(r"Expected a (?!NoneType).*?(?= - |\s*Given value|$)", reason)
        reason = expected.group() if expected else reason
        reason = re.sub(r"^Expected a (\w+)\. Got value: (.*)", r"must be of type \1, not \2", reason)
        found = locate(config, ".".join(keys).split("."))
        place, name = (f"{where(found[0])}: ", found[1]) if found else ("", ".".join(keys))
        text = f"{place}{name}: {reason}"
    return text if len(text) <= 700 else text[:700] + " ..."

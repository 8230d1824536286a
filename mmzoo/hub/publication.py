"""What of a model folder goes up to the Hub: an exact list, checked against zoo.json, and nothing beside it.

Never uploaded: whatever zoo.json does not vouch for and no tool needs to load the model, such as trainer state.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmzoo.errors import InputError
from mmzoo.hub.evaluations import Evaluation, Target, card_with, eval_results_files
from mmzoo.hub.source import CONFIG_FILE, find_source
from mmzoo.hub.weights import weight_files
from mmzoo.hub.zoo_file import ZOO_FILE, check_files, read_zoo_file

CARD_FILE = "README.md"
#: Files without weights that go up when they are there. Weights go up when zoo.json lists them.
PLAIN_FILES = (
    *(CONFIG_FILE, ZOO_FILE, CARD_FILE, "LICENSE*", "generation_config.json", "preprocessor_config.json"),
    *("processor_config.json", "video_preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja"),
)


@dataclass(frozen=True)
class PublishedFile:
    """One file of the upload. content: the local file, or bytes made for the Hub. size in bytes."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True)
class ModelFolder:
    """A complete folder. files: name -> sha256 of those that zoo.json vouches for. left_out: what stays here."""

    folder: Path
    files: Mapping[str, str]
    plain: Sequence[str]
    left_out: Sequence[str]


def check_model_folder(given: Path) -> ModelFolder:
    """The folder, or the `model/` of a finished checkpoint, with every hash compared.

    InputError: no folder, no model in it, no zoo.json or card, a file that is missing or was changed.
    """
    if not given.is_dir():
        raise InputError(f"there is no model folder {given}. Give a folder that mmzoo saved, or a checkpoint.")
    folder = find_source(given).folder
    zoo = read_zoo_file(folder)
    for name, absent in ((ZOO_FILE, zoo is None), (CARD_FILE, not (folder / CARD_FILE).is_file())):
        if absent:
            raise InputError(
                f"{folder} is not complete: it has no {name}. Save the model with mmzoo.hub.save.save_model."
            )
    listed = sorted((zoo or {})["files"])
    _refuse_outside(folder, listed)
    missing = [name for name in listed if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder} is not complete: {missing[0]} is missing, which {ZOO_FILE} lists. Save it again.")
    files, _ = check_files(folder, sorted({*listed, CONFIG_FILE, *weight_files(folder)}))
    here = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    _refuse_outside(folder, [name for name in here if name in files or _is_plain(name)])
    plain = [name for name in here if _is_plain(name)]
    left_out = [name for name in here if name not in plain and name not in files]
    return ModelFolder(folder, files, plain, left_out)


def _is_plain(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in PLAIN_FILES)


def _refuse_outside(folder: Path, names: Sequence[str]) -> None:
    """InputError for a file that lies elsewhere: a link, or a name with `..` in zoo.json, would publish anything."""
    for name in names:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"{folder / name} leads out of the folder, to {(folder / name).resolve()}. Put a copy in its place."
            )


def _card_of(folder: Path) -> str:
    try:
        return (folder / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise InputError(f"{folder / CARD_FILE} is no text in UTF-8 ({fault}). Save it as such.") from fault


def published_files(model: ModelFolder, evaluations: Sequence[Evaluation], target: Target) -> list[PublishedFile]:
    """Everything that goes up, by name."""
    names = sorted({*model.plain, *model.files} - {CARD_FILE})
    card = card_with(_card_of(model.folder), evaluations, target)
    found: dict[str, Path | bytes] = {name: model.folder / name for name in names}
    found[CARD_FILE] = card.encode()
    found.update(eval_results_files(evaluations))
    for one in evaluations:
        found.update(one.files)
    return [PublishedFile(name, content) for name, content in sorted(found.items())]

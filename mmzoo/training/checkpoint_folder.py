"""The checkpoint as a folder: what is in it, the seal that proves it is whole, and finding one by name.

    checkpoints/step_00000100/   trainer.ckpt  data_state.json  rng.safetensors  config.yaml  model/  DONE
    checkpoints/last             -> the newest          checkpoints/best -> the best by the module's metric

`DONE` is written last and lists size and sha256 of every other file; a folder without it was never finished.
A checkpoint is built in a hidden folder beside its place. What a killed save leaves there is swept at the next start.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmzoo.durable_files import TEMPORARY, flush, replace_link, sha256_of, temporary_sibling
from mmzoo.errors import InputError, suggestion

SCHEMA = 1
TRAINER_FILE, DATA_FILE, RNG_FILE, CONFIG_FILE = "trainer.ckpt", "data_state.json", "rng.safetensors", "config.yaml"
MODEL_FOLDER, SEAL, LAST, BEST = "model", "DONE", "last", "best"
STEP_NAME = re.compile(r"step_(\d+)")
REMOVED = "removed_"  #: in front of the hidden name of a checkpoint that is being removed


def step_name(step: int) -> str:
    """Folder name of the checkpoint after `step` updates."""
    return f"step_{step:08d}"


def _content(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / SEAL)


def seal(folder: Path, step: int) -> None:
    """Flushes every file to the disk and writes DONE.

    {"schema", "step", "saved": seconds since 1970, "files": {name: {"size", "sha256"}}}
    """
    files = {}
    for path in _content(folder):
        flush(path)
        files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    done = folder / SEAL
    record = {"schema": SCHEMA, "step": step, "saved": time.time(), "files": files}
    done.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for path in (done, *(child for child in folder.rglob("*") if child.is_dir()), folder):
        flush(path)


def publish(temporary: Path, final: Path) -> None:
    """Gives a sealed folder its name. An earlier folder of that name is moved out of the way first, then removed."""
    earlier = None
    if final.exists():
        earlier = temporary_sibling(final)
        final.rename(earlier)
    try:
        temporary.rename(final)
    except BaseException:
        if earlier is not None and not final.exists():
            earlier.rename(final)
        raise
    flush(final.parent)
    if earlier is not None:
        shutil.rmtree(earlier)


def read_seal(folder: Path) -> dict[str, Any]:
    """The content of DONE. InputError when the folder was never finished or DONE is not ours."""
    done = folder / SEAL
    if not done.is_file():
        raise InputError(
            f"{folder} is not a finished checkpoint: it has no {SEAL}. Take an earlier one{others(folder)}."
        )
    try:
        record = json.loads(done.read_text(encoding="utf-8"))
        schema = record["schema"]
        record["files"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise InputError(f"{done} cannot be read ({fault}). Take an earlier checkpoint{others(folder)}.") from fault
    if schema != SCHEMA:
        raise InputError(f"{done} has schema {schema}; this mmzoo reads schema {SCHEMA}. Use the mmzoo that wrote it.")
    return record


def others(folder: Path) -> str:
    """Names the finished checkpoints beside `folder`, for the end of an error message."""
    names = [path.name for path in finished(folder.parent) if path.name != folder.name]
    return f" ({', '.join(names[-3:])} in {folder.parent})" if names else ""


def verify(folder: Path) -> dict[str, Any]:
    """Checks size and sha256 of every file against DONE; returns DONE. InputError names the first file that differs."""
    record = read_seal(folder)
    for name, expected in record["files"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{folder} is damaged: {name} is missing. Take an earlier checkpoint{others(folder)}.")
        size = path.stat().st_size
        if size != expected["size"]:
            raise InputError(
                f"{folder} is damaged: {name} has {size} bytes instead of {expected['size']}. "
                f"Take an earlier checkpoint{others(folder)}."
            )
        if sha256_of(path) != expected["sha256"]:
            raise InputError(
                f"{folder} is damaged: the content of {name} has changed since it was saved (sha256). "
                f"Take an earlier checkpoint{others(folder)}."
            )
    return record


def finished(checkpoints: Path) -> list[Path]:
    """The finished checkpoints in a folder, by step."""
    if not checkpoints.is_dir():
        return []
    found = (path for path in checkpoints.iterdir() if STEP_NAME.fullmatch(path.name) and (path / SEAL).is_file())
    return sorted(found, key=lambda path: path.name)


def by_age(checkpoints: Path) -> list[Path]:
    """The finished checkpoints in a folder, the last saved one last (a resume may go back to an earlier step)."""
    return sorted(finished(checkpoints), key=lambda path: (_saved(path), path.name))


def _saved(folder: Path) -> float:
    try:
        return float(read_seal(folder).get("saved", 0.0))
    except (InputError, TypeError, ValueError):
        return 0.0  # damaged: never the newest


def size(folder: Path) -> int:
    """Bytes of a finished checkpoint, after its DONE."""
    return sum(file["size"] for file in read_seal(folder)["files"].values())


def resolve_checkpoint(path: str | Path) -> Path:
    """The real folder of a checkpoint given as folder or as `last`/`best` link, verified file by file.

    InputError when it does not exist, was not finished, or a file's size or sha256 differs from DONE.
    """
    given = Path(path)
    if given.is_file():
        raise InputError(f"{given} is a file; a checkpoint is a folder. Give its folder: {given.parent}")
    if not given.is_dir():
        known = [child.name for child in finished(given.parent)]
        known += [name for name in (LAST, BEST) if (given.parent / name).is_dir()]
        advice = suggestion(given.name, known) or " Give a folder below runs/NAME/checkpoints, or last with --run"
        raise InputError(f"there is no checkpoint {given}.{advice}")
    folder = given.resolve()
    if not (folder / SEAL).is_file() and (folder / "checkpoints").is_dir():
        raise InputError(f"{given} is a run, not a checkpoint. Try: {given}/checkpoints/{LAST}")
    if not any((folder / name).exists() for name in (SEAL, TRAINER_FILE)) and (folder / "config.json").is_file():
        raise InputError(f"{given} is a model, not a checkpoint. To start from its weights: --init_from {given}")
    verify(folder)
    return folder


def prune(checkpoints: Path, keep: int) -> None:
    """Removes all but the `keep` last saved checkpoints; what `last` and `best` point to always stays."""
    kept = {(checkpoints / name).resolve() for name in (LAST, BEST)}
    for folder in by_age(checkpoints)[:-keep]:
        if folder.resolve() not in kept:
            # Under another name first: a half-removed folder must not look finished.
            removed = temporary_sibling(folder.with_name(REMOVED + folder.name))
            folder.rename(removed)
            shutil.rmtree(removed)


def point(checkpoints: Path, link: str, name: str) -> None:
    """Lets `last` or `best` point to the checkpoint `name`."""
    replace_link(checkpoints / link, name)


def sweep(checkpoints: Path) -> list[str]:
    """Tidies up after a save that was killed; called when a training starts in this run. Says what it did.

    Unfinished hidden folders are removed. A finished one that had not got its name yet gets it, and `last` points to
    the last saved checkpoint.
    """
    if not checkpoints.is_dir():
        return []
    notes = []
    for path in sorted(checkpoints.iterdir()):
        match = TEMPORARY.fullmatch(path.name)
        if match is None:
            continue
        place = checkpoints / match[1]
        if path.is_symlink():
            path.unlink()
        elif STEP_NAME.fullmatch(match[1]) and not place.exists() and _is_whole(path):
            path.rename(place)
            notes.append(f"{place.name} was finished but not in its place yet; it is now")
        elif STEP_NAME.fullmatch(match[1].removeprefix(REMOVED)):
            shutil.rmtree(path)
            notes.append(f"removed {path.name}, left by a save that was cut off")
    if (newest := by_age(checkpoints)) and _is_behind(checkpoints / LAST, newest[-1]):
        point(checkpoints, LAST, newest[-1].name)
        notes.append(f"{LAST} points to {newest[-1].name} now")
    return notes


def _is_behind(link: Path, newest: Path) -> bool:
    """Whether a save was cut off before it moved the link. A damaged target stays: resuming it says what is wrong."""
    return not link.is_dir() or ((link / SEAL).is_file() and 0 < _saved(link.resolve()) < _saved(newest))


def _is_whole(folder: Path) -> bool:
    try:
        verify(folder)
    except InputError:
        return False
    return True

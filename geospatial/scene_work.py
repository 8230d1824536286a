"""The rows of a map that are done, on the disk: what a killed run leaves behind, and the next one goes on from.

A folder beside the map: one file of plain rows a layer, and a journal. Rows are flushed to the disk before the journal
says so; what lies behind the last line of the journal is cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from geospatial.scene_layers import Layer
from mmzoo.durable_files import refused_writes_named, write_text
from mmzoo.errors import InputError

JOURNAL, IDENTITY, LOCK = "journal", "identity.json", "lock"


class SceneWork:
    """`done`: rows that an earlier run with the same `identity` left; the rows of another identity are thrown away.

    InputError: another run works on the map, or the folder cannot be written.
    """

    def __init__(self, folder: Path, identity: str, layers: Sequence[Layer], width: int) -> None:
        self.folder, self.layers, self.width = folder, list(layers), width
        self._identity = identity
        self._lock: TextIO | None = None
        self.done = 0

    def __enter__(self) -> SceneWork:
        with refused_writes_named(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise InputError(
                f"another run works on this map ({self.folder}). Wait for it, or choose another -o"
            ) from None
        with refused_writes_named(self.folder):
            self._find_done()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._lock is not None
        self._lock.close()
        if self.done == 0 and self.folder.is_dir():
            self.remove()

    def remove(self) -> None:
        """Deletes the folder: the map is there."""
        shutil.rmtree(self.folder)

    def file(self, layer: Layer) -> Path:
        """The plain rows of a layer: `dtype`, (rows, bands, width)."""
        return self.folder / f"{layer.name}.rows"

    def row_bytes(self, layer: Layer) -> int:
        """Of one row of a layer."""
        return np.dtype(layer.dtype).itemsize * len(layer.bands) * self.width

    def _find_done(self) -> None:
        told = self.folder / IDENTITY
        same = told.is_file() and told.read_text(encoding="utf-8") == json.dumps(self._identity)
        self.done = self._journaled() if same else 0
        if not same:
            (self.folder / JOURNAL).unlink(missing_ok=True)
            write_text(told, json.dumps(self._identity))
        for layer in self.layers:
            with self.file(layer).open("ab") as file:
                file.truncate(self.done * self.row_bytes(layer))

    def _journaled(self) -> int:
        """Rows of the last whole line for which every layer has its bytes."""
        journal = self.folder / JOURNAL
        lines = journal.read_bytes().split(b"\n")[:-1] if journal.is_file() else []
        rows = int(lines[-1]) if lines else 0
        files = [(self.file(layer), self.row_bytes(layer)) for layer in self.layers]
        whole = all(file.is_file() and file.stat().st_size >= rows * size for file, size in files)
        return rows if whole else 0

    def append(self, rows: Mapping[str, np.ndarray]) -> None:
        """Adds finished rows (n, bands, width) of every layer, by name. NoSpaceError: the disk is full."""
        count = 0
        with refused_writes_named(self.folder):
            for layer in self.layers:
                count = len(rows[layer.name])
                _append(self.file(layer), rows[layer.name].data.cast("B"))
            self.done += count
            _append(self.folder / JOURNAL, f"{self.done}\n".encode())

    def rows(self, layer: Layer, top: int, count: int) -> np.ndarray:
        """Rows of a layer, (bands, count, width)."""
        shape = count, len(layer.bands), self.width
        with self.file(layer).open("rb") as file:
            file.seek(top * self.row_bytes(layer))
            values = np.frombuffer(file.read(count * self.row_bytes(layer)), layer.dtype)
        return values.reshape(shape).swapaxes(0, 1)


def _append(path: Path, content: bytes | memoryview) -> None:
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

"""Where the numbers of a run go: `metrics.csv` and a `tensorboard/` folder. Both count in weight updates."""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from mmzoo.durable_files import temporary_sibling
from mmzoo.training.stepping import updates

CSV_FILE, TENSORBOARD_FOLDER = "metrics.csv", "tensorboard"
FIRST_COLUMNS = ("step", "epoch")


def step_now(trainer: Trainer | None, step: int | None) -> int:
    """The update that a value belongs to; Lightning hands loggers a count from 0 that stays 0 outside of fit."""
    return updates(trainer) if trainer is not None else (step or 0)


class MetricsCsv(Logger):
    """One row a step in `folder/metrics.csv`, appended and flushed; a new column rewrites the file once.

    keep_steps: an existing file keeps its rows up to this step (a resumed run); None starts a new file.
    """

    def __init__(self, folder: str | Path, keep_steps: int | None = None) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.path = self.folder / CSV_FILE
        self.trainer: Trainer | None = None
        self._keep_steps = keep_steps
        self._columns = list(FIRST_COLUMNS)
        self._row: dict[str, Any] = {}
        self._file: TextIO | None = None

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the config of a run is in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        now = step_now(self.trainer, step)
        if self._row.get("step") != now:
            self._write_row()
        self._row.update(metrics, step=now)

    @rank_zero_only
    def save(self) -> None:
        """Nothing: a row is written when the next step begins, so that training and validation values share it."""

    @rank_zero_only
    def finalize(self, status: str) -> None:  # noqa: ARG002
        self._write_row()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write_row(self) -> None:
        row, self._row = self._row, {}
        if len(row) < 2:
            return
        if self._file is None:
            self._open(row)
        unknown = [name for name in row if name not in self._columns]
        if unknown:
            self._rewrite([*self._columns, *sorted(unknown)])
        assert self._file is not None
        csv.DictWriter(self._file, self._columns).writerow(row)
        self._file.flush()

    def _open(self, row: dict[str, Any]) -> None:
        """Starts the file, or goes on behind the rows to keep."""
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = self._read() if self._keep_steps is not None and self.path.is_file() else []
        kept = [old for old in rows if int(old["step"]) <= (self._keep_steps or 0)]
        columns = list(rows[0]) if rows else list(FIRST_COLUMNS)
        self._replace(kept, columns + sorted(name for name in row if name not in columns))

    def _rewrite(self, columns: list[str]) -> None:
        assert self._file is not None
        self._file.close()
        self._replace(self._read(), columns)

    def _read(self) -> list[dict[str, Any]]:
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _replace(self, rows: list[dict[str, Any]], columns: list[str]) -> None:
        temporary = temporary_sibling(self.path)
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        self._columns = columns
        self._file = self.path.open("a", newline="", encoding="utf-8")


class TensorBoard(TensorBoardLogger):
    """TensorBoard events in `folder/tensorboard`, at the same steps as the CSV file.

    keep_steps: what was logged after this step by an earlier start is dropped from the plots.
    """

    def __init__(self, folder: str | Path, keep_steps: int | None = None) -> None:
        purge: dict[str, Any] = {} if keep_steps is None else {"purge_step": keep_steps + 1}
        super().__init__(save_dir=str(folder), name=TENSORBOARD_FOLDER, version="", default_hp_metric=False, **purge)
        self.trainer: Trainer | None = None

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics, step_now(self.trainer, step))

    @rank_zero_only
    def save(self) -> None:
        """Flushes the events; the hparams.yaml that Lightning would write is always empty here."""
        if self._experiment is not None:
            self._experiment.flush()

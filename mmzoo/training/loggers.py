"""Where the numbers of a run go: `metrics.csv` and a `tensorboard/` folder. Both count in weight updates."""

from __future__ import annotations

import csv
import errno
import io
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from mmzoo.durable_files import temporary_sibling
from mmzoo.training.stepping import updates

CSV_FILE, TENSORBOARD_FOLDER = "metrics.csv", "tensorboard"
FIRST_COLUMNS = ("step", "epoch")


def step_now(trainer: Trainer | None, step: int | None) -> int:
    """The update that a value belongs to; Lightning hands loggers a count from 0 that stays 0 outside of fit."""
    return updates(trainer) if trainer is not None else (step or 0)


def values_of_now(trainer: Trainer) -> dict[str, Any]:
    """What Lightning will hand to the loggers after the hook that is running; empty between two logged steps."""
    connector = trainer._logger_connector
    values = connector.metrics["log"] if trainer.validating or connector.should_update_logs else {}
    return {"epoch": trainer.current_epoch, **values} if values else {}


class MetricsCsv(Logger):
    """One row a step in `folder/metrics.csv`, written when the next step begins; a new column rewrites the file once.

    keep_steps: an existing file keeps its rows up to this step (a resumed run); None starts a new file. On a full disk
    the rows wait in memory until there is room again.
    """

    def __init__(self, folder: str | Path, keep_steps: int | None = None) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.path = self.folder / CSV_FILE
        self.trainer: Trainer | None = None
        self._keep_steps = keep_steps
        self._columns = list(FIRST_COLUMNS)
        self._row: dict[str, Any] = {}
        self._waiting: list[dict[str, Any]] = []
        self._file: int | None = None
        self._end = 0  # bytes of the file that belong to rows of earlier steps
        self._warned = False

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
    def keep(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Adds values to the row of this step and writes it now, though more may come: a checkpoint is due.

        A run that is killed after that save and resumed from it would miss the row otherwise.
        """
        if metrics:
            values = {name: v.item() if isinstance(v, Tensor) else v for name, v in metrics.items()}
            self.log_metrics(values, step)
        self._write([*self._waiting, self._row], final=False)

    @rank_zero_only
    def finalize(self, status: str) -> None:  # noqa: ARG002
        self._write_row()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write_row(self) -> None:
        row, self._row = self._row, {}
        if len(row) > 1:
            self._waiting.append(row)
            self._write(self._waiting, final=True)

    def _write(self, rows: list[dict[str, Any]], final: bool) -> None:
        """Puts the rows behind `_end`, over what `keep` has put there; `final`: they are complete."""
        rows = [row for row in rows if len(row) > 1]
        if not rows:
            return
        try:
            names = dict.fromkeys(name for row in rows for name in row)
            if self._file is None:
                self._open(list(names))
            elif unknown := sorted(name for name in names if name not in self._columns):
                self._replace(self._read(), [*self._columns, *unknown])
            size = self._put(rows)
        except OSError as fault:
            if not self._warned:
                sys.stderr.write(f"note: {self.path} cannot be written ({fault.strerror}); its rows wait in memory\n")
                self._warned = True
            return
        self._warned = False
        if final:
            self._waiting = []
            self._end += size

    def _put(self, rows: list[dict[str, Any]]) -> int:
        """Bytes written; on any error the file ends where it did, without half a row."""
        assert self._file is not None
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns).writerows(rows)
        data = text.getvalue().encode()
        try:
            written = os.pwrite(self._file, data, self._end)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        os.ftruncate(self._file, self._end + len(data))
        return len(data)

    def _open(self, names: list[str]) -> None:
        """Starts the file, or goes on behind the rows to keep."""
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = self._read() if self._keep_steps is not None and self.path.is_file() else []
        kept = [old for old in rows if int(old["step"]) <= (self._keep_steps or 0)]
        columns = list(rows[0]) if rows else list(FIRST_COLUMNS)
        self._replace(kept, columns + sorted(name for name in names if name not in columns))

    def _read(self) -> list[dict[str, Any]]:
        """The rows of the file, without the one that `keep` may have put at its end."""
        with self.path.open(newline="", encoding="utf-8") as file:
            text = file.read() if self._file is None else file.read()[: self._end]
        return list(csv.DictReader(io.StringIO(text, newline="")))

    def _replace(self, rows: list[dict[str, Any]], columns: list[str]) -> None:
        temporary = temporary_sibling(self.path)
        try:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(rows)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        if self._file is not None:
            os.close(self._file)
        self._columns = columns
        self._file = os.open(self.path, os.O_WRONLY)
        self._end = os.fstat(self._file).st_size


class TensorBoard(TensorBoardLogger):
    """TensorBoard events in `folder/tensorboard`, at the same steps as the CSV file.

    keep_steps: what was logged after this step by an earlier start is dropped from the plots. On a full disk it ends,
    with a note: the CSV file holds the same numbers.
    """

    def __init__(self, folder: str | Path, keep_steps: int | None = None) -> None:
        purge: dict[str, Any] = {} if keep_steps is None else {"purge_step": keep_steps + 1}
        super().__init__(save_dir=str(folder), name=TENSORBOARD_FOLDER, version="", default_hp_metric=False, **purge)
        self.trainer: Trainer | None = None
        self._ended = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._unless_full(super().log_metrics, metrics, step_now(self.trainer, step))

    @rank_zero_only
    def save(self) -> None:
        """Flushes the events; the hparams.yaml that Lightning would write is always empty here."""
        if self._experiment is not None:
            self._unless_full(self._experiment.flush)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if not self._ended:
            self._unless_full(super().finalize, status)

    def _unless_full(self, write: Callable[..., None], *arguments: Any) -> None:
        if self._ended:
            return
        try:
            write(*arguments)
        except OSError as fault:
            self._ended = True
            sys.stderr.write(f"note: {self.save_dir}/{TENSORBOARD_FOLDER} ends here ({fault.strerror})\n")

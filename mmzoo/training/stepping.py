"""What counts as a step. The only file that looks into Lightning's loop for it.

A step is one update of the model's weights (of the first optimiser where several take turns), because that is what
schedules, checkpoints and plots are about. Lightning hands `training_step` the whole window of micro-batches that one
update is made of (window.py), and counts the first optimiser's steps only (update.py): so its own count is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def updates(trainer: Trainer) -> int:
    """Weight updates since the start of training, also over resumed runs."""
    return trainer.global_step


def batches_of_epoch(trainer: Trainer) -> int:
    """What the data stream handed out in this training epoch so far; more than 0 where a resume goes on inside it."""
    # "processed": a checkpoint that is written in `on_train_batch_end` has not counted its own batch as completed.
    return trainer.fit_loop.epoch_loop.batch_progress.current.processed  # pyright: ignore[reportAttributeAccessIssue]


def is_last_update(trainer: Trainer) -> bool:
    """Whether training ends with the batch that was just trained on (asked in `on_train_batch_end`)."""
    if 0 <= trainer.max_steps <= updates(trainer):
        return True
    return (
        trainer.is_last_batch
        and trainer.max_epochs not in (None, -1)
        and trainer.current_epoch + 1 >= trainer.max_epochs
    )


def log_interval(trainer: Trainer) -> int:
    """Updates between two logged steps (Lightning sets the attribute outside of the class that type checkers see)."""
    return max(1, trainer.log_every_n_steps)  # pyright: ignore[reportAttributeAccessIssue]


def next_is_logged(trainer: Trainer) -> bool:
    """Whether the update that is being made belongs to a logged step, or is the last one of the training."""
    coming = updates(trainer) + 1
    return coming % log_interval(trainer) == 0 or coming == trainer.max_steps


def is_trial(trainer: Trainer) -> bool:
    """Whether this is `--trainer.fast_dev_run`: a few batches to see that nothing breaks; leaves no files."""
    return bool(trainer.fast_dev_run)  # pyright: ignore[reportAttributeAccessIssue]


def validation_follows(trainer: Trainer) -> bool:
    """Whether Lightning validates right after this batch (asked in `on_train_batch_end`).

    A checkpoint that is due now is then written after it: one written before would skip that validation on resume.
    """
    fetcher = trainer.fit_loop._data_fetcher
    return (
        fetcher is not None and trainer.enable_validation and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)
    )

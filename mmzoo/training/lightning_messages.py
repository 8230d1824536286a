"""The one place where messages of Lightning and torch are silenced: advertising, and warnings that are wrong for us."""

from __future__ import annotations

import logging
import warnings

#: Starts of log lines that say nothing about the user's run.
SILENCED_LINES = (
    "💡 Tip",
    "GPU available:",
    "TPU available:",
    "HPU available:",
    "Using default `ModelCheckpoint`",
    "Restoring states from the checkpoint path at",
    "Restored all states from the checkpoint at",
    "Loaded model weights from the checkpoint at",
    "`Trainer.fit` stopped: `max_steps=",
    "`Trainer.fit` stopped: `max_epochs=",
    "`weights_only` was not set",
    "Seed set to",
    "Detected KeyboardInterrupt",
    "Received SIGTERM",
)
#: Beginnings of warnings (regular expressions), each with the reason why it does not hold here.
SILENCED_WARNINGS = (
    # The data position is ours (data_state.json); Lightning looks for its own kind of loader state.
    r"You're resuming from a checkpoint that ended before the epoch ended and your dataloader is not resumable",
    # Frozen teachers and encoders are in eval mode on purpose.
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # Epochs are as short as the user's `steps_per_epoch`; the speed and losses are logged at the user's interval.
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    # Inside Lightning 2.6.6, with torch >= 2.13.
    r"torch\.distributed\.nn\.functional\.all_gather is deprecated",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # Lightning 2.6.6 calls jsonargparse by names of before 4.49; jsonargparse < 5 is pinned.
    r"\s*By default only one JsonargparseDeprecationWarning per type is shown",
    r"\s*``instantiate_classes`` was deprecated in v4\.49\.0",
)


class _WithoutAdvertising(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().lstrip().startswith(SILENCED_LINES)


def silence() -> None:
    """Installs the filters above; called when a training command starts, never at import."""
    only = _WithoutAdvertising()
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.fabric.utilities.rank_zero",
        "lightning.fabric.utilities.seed",
        "lightning.pytorch.trainer.connectors.checkpoint_connector",
    ):
        logger = logging.getLogger(name)
        if not any(isinstance(present, _WithoutAdvertising) for present in logger.filters):
            logger.addFilter(only)
    for message in SILENCED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)

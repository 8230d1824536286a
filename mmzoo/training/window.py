"""The micro-batches that one update is made of.

Accumulated gradients equal those of the big batch only if every micro-batch is divided by what all of them hold
together, and turns of several optimisers must each see all of them. So the data stream hands out the whole window.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class Window:
    """The batches of one update, in the memory of the host; each goes to the device when its turn comes.

    No list and no dataclass, for Lightning moves what is in those to the device at once.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = list(batches)


def micro_batches(batch: Any) -> list[Any]:
    """The batches in what the stream handed out: those of a window, or the one there is."""
    return batch.batches if isinstance(batch, Window) else [batch]


def accumulation(trainer: Trainer | None) -> int:
    """Batches that each update is made of: `trainer.accumulate_grad_batches` as the user gave it."""
    module = getattr(trainer, "lightning_module", None)
    settings = getattr(module, "update_settings", None)
    return settings.accumulate if settings is not None else 1

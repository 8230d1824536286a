"""Lightning's table of logged values, worked out when a value was logged instead of after every step.

Between two logged steps nothing is logged, yet Lightning gathers the same values anew after each step, and on a GPU
waits for the device to show them in the progress bar. Its own table is the reference: what this one answers is what
that one answers.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.connectors.logger_connector.result import _METRICS, _ResultCollection, _ResultMetric


class KeptResults(_ResultCollection):
    """The values of training steps; what holds for a whole epoch is worked out anew each time, as in Lightning."""

    def __init__(self) -> None:
        super().__init__(training=True)
        self._of_step: _METRICS | None = None  #: since the last change

    def metrics(self, on_step: bool) -> _METRICS:
        """Tensors and numbers by purpose and name. The same dicts until something changes: not to be written to."""
        if not on_step or self.dataloader_idx is not None:
            return super().metrics(on_step)
        if self._of_step is None:
            self._of_step = super().metrics(on_step)
        return self._of_step

    def update_metrics(self, key: str, value: Any, batch_size: int) -> None:
        self._of_step = None
        super().update_metrics(key, value, batch_size)  # pyright: ignore[reportAttributeAccessIssue]  # decorated

    def reset(self, metrics: bool | None = None, fx: str | None = None) -> None:
        self._of_step = None
        super().reset(metrics, fx)

    def to(self, *args: Any, **kwargs: Any) -> _ResultCollection:
        self._of_step = None
        return super().to(*args, **kwargs)

    def __setitem__(self, key: str, value: _ResultMetric) -> None:
        value.to = _Move(value)  # pyright: ignore[reportAttributeAccessIssue]
        super().__setitem__(key, value)


class _Move:
    """`to` of one value. Lightning calls it at each `log`, looking through all that the value consists of."""

    def __init__(self, value: _ResultMetric) -> None:
        self._value = value
        self._device: torch.device | None = None  #: where all of it is known to be

    def __call__(self, *args: Any, **kwargs: Any) -> _ResultMetric:
        (device,) = args if len(args) == 1 and not kwargs else (None,)
        if device is None or device != self._device:
            _ResultMetric.to(self._value, *args, **kwargs)
            self._device = device if isinstance(device, torch.device) else None
        return self._value


def keep_results(trainer: Trainer) -> None:
    """For trainings to come of this trainer."""
    trainer.fit_loop.epoch_loop._results = KeptResults()

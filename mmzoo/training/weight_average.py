"""Moving averages of the weights (EMA): what is validated, what `best` is chosen by, and what `model/` holds.

Only trained parameters are averaged. Everything else follows its own rule and is taken as it is at that moment:
buffers, frozen weights, the codebook tables of a quantiser, which are moving averages already, and a discriminator.
"""

# ruff: noqa: ARG002 - a hook of Lightning is handed more than it needs
from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from mmzoo.errors import InputError
from mmzoo.training.stepping import updates


class WeightAverage(Callback):
    """decay: of the average, per update (null: off); 0.999 remembers about a thousand updates. warmup: begin with
    (1 + n) / (10 + n) at update n, so that the random start is forgotten soon.

    `trainer.ckpt` holds both the weights and their average. While validation runs, the average is in the model.
    """

    def __init__(self, decay: float | None = None, warmup: bool = True) -> None:
        if decay is not None and not 0 < decay < 1:
            raise InputError(f"ema.decay must lie between 0 and 1, not {decay}. Try 0.999")
        self.decay = decay
        self.warmup = warmup
        self.average: dict[str, Tensor] = {}
        self._followed: list[nn.Parameter] = []  #: in the order of `average`
        self._kept: dict[str, Tensor] = {}  #: the trained weights, while the average is in their place

    def state_dict(self) -> dict[str, Any]:
        return dict(self.average)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.average = dict(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the average, or moves the resumed one to where the weights are."""
        if self.decay is None:
            if self.average:
                _note(trainer, "the checkpoint holds averaged weights; ema.decay is off, so they are dropped")
            self.average = {}
            return
        weights = averaged_parameters(pl_module)
        if self.average:
            self._check(weights)
            self.average = {name: self.average[name].to(weight.device) for name, weight in weights.items()}
        else:
            if updates(trainer):
                _note(trainer, f"the checkpoint holds no averaged weights; they start at step {updates(trainer)}")
            self.average = {name: weight.detach().float().clone() for name, weight in weights.items()}
        self._followed = list(weights.values())  # once: to walk a model's modules costs more than to average it

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.decay is None:
            return
        n = updates(trainer)
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay
        now = [weight if weight.dtype == torch.float32 else weight.float() for weight in self._followed]
        torch._foreach_lerp_(list(self.average.values()), now, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.put_in(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.take_out(pl_module)

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.take_out(pl_module)

    def put_in(self, module: nn.Module) -> None:
        """The average into the model, on the place of the trained weights; nothing where it is there already."""
        if not self.average or self._kept:
            return
        weights = averaged_parameters(module)
        self._check(weights)
        for name, weight in weights.items():
            self._kept[name] = weight.data
            weight.data = self.average[name].to(device=weight.device, dtype=weight.dtype)

    def _check(self, weights: Mapping[str, Tensor]) -> None:
        if missing := weights.keys() - self.average.keys():
            raise InputError(
                f"the averaged weights of the checkpoint lack {min(missing)}: another config trained other parts. "
                f"Train the same ones, or start from its weights with --init_from"
            )

    def take_out(self, module: nn.Module) -> None:
        """The trained weights back."""
        weights = averaged_parameters(module) if self._kept else {}
        for name, kept in self._kept.items():
            weights[name].data = kept
        self._kept = {}


def averaged_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters, by name, without the parts that the module leaves out (`ZooModule.not_averaged`)."""
    left_out: tuple[str, ...] = getattr(module, "not_averaged", ())
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and name.partition(".")[0] not in left_out
    }


def _find(trainer: Trainer) -> WeightAverage | None:
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return next((callback for callback in callbacks if isinstance(callback, WeightAverage)), None)


@contextmanager
def trained_weights(trainer: Trainer, module: nn.Module) -> Iterator[None]:
    """Makes sure that the model holds the weights that training goes on with, also in the middle of a validation."""
    average = _find(trainer)
    inside = average is not None and bool(average._kept)
    if average is not None and inside:
        average.take_out(module)
    try:
        yield
    finally:
        if average is not None and inside:
            average.put_in(module)


@contextmanager
def published_weights(trainer: Trainer, module: nn.Module) -> Iterator[None]:
    """Makes sure that the model holds what is published: the average where there is one."""
    average = _find(trainer)
    outside = average is not None and not average._kept
    if average is not None and outside:
        average.put_in(module)
    try:
        yield
    finally:
        if average is not None and outside:
            average.take_out(module)


def _note(trainer: Trainer, text: str) -> None:
    if trainer.is_global_zero:
        sys.stderr.write(f"note: {text}\n")

"""One update of the weights, over all its micro-batches and ranks, optimiser by optimiser.

Lightning refuses accumulation and clipping as soon as there are two optimisers, counts the steps of all of them, and
averages the means of micro-batches and ranks, which is not the gradient of the big batch when those differ in size.
Here one way serves every module: each micro-batch's loss is a sum divided by the count of the whole update.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor
from torch.optim import Optimizer

from mmzoo.training.loss_sums import Count, WeightedLoss
from mmzoo.training.window import Window, micro_batches

if TYPE_CHECKING:
    from mmzoo.training.module import ZooModule


@dataclass(frozen=True)
class UpdateSettings:
    """accumulate: batches an update. clip: largest gradient, by the norm over an optimiser's parameters or by value."""

    accumulate: int = 1
    clip: float | None = None
    clip_by: Literal["norm", "value"] = "norm"

    @classmethod
    def taken_from(cls, trainer: Trainer) -> UpdateSettings:
        """The trainer's settings, taken away from Lightning, which would refuse them in a module that steps itself."""
        taken = cls(
            trainer.accumulate_grad_batches,
            trainer.gradient_clip_val,  # type: ignore[arg-type]
            "value" if trainer.gradient_clip_algorithm == "value" else "norm",
        )
        trainer.accumulate_grad_batches, trainer.gradient_clip_val = 1, None
        return taken

    def give_back(self, trainer: Trainer) -> None:
        """The counterpart, so that the trainer may be used again."""
        trainer.accumulate_grad_batches, trainer.gradient_clip_val = self.accumulate, self.clip


@dataclass(frozen=True)
class Counts:
    """Terms of each loss part: `of` each micro-batch here, and `total` over all of them and all ranks."""

    of: Sequence[Mapping[str, Count]]
    total: Mapping[str, Count]


def count_terms(module: ZooModule, batches: Sequence[Any]) -> Counts:
    """Asks the module what the batches hold, before anything is computed; every rank takes part."""
    of = [module.loss_counts(batch) for batch in batches]
    total: dict[str, Count] = dict(of[0])
    for counts in of[1:]:
        total = {name: total[name] + counts[name] for name in total}
    if module.trainer.world_size > 1:
        names = sorted(total)
        values = [torch.as_tensor(total[name], dtype=torch.int64, device=module.device) for name in names]
        summed = module.trainer.strategy.reduce(torch.stack(values), reduce_op="sum")
        total = dict(zip(names, summed.unbind(), strict=True))
    return Counts(of, total)


def run_update(module: ZooModule, batch: Any) -> Tensor:
    """Each optimiser's turn over the whole window; returns the first one's loss (this rank's share of it)."""
    counts = count_terms(module, micro_batches(batch))
    losses = [_turn(module, number, batch, counts) for number in range(len(module.turns))]
    if losses[0] is None:
        raise RuntimeError(f"{type(module).__name__}.losses gave none for {module.turns[0]!r}, whose updates are steps")
    return losses[0]


def _turn(module: ZooModule, number: int, batch: Any, counts: Counts) -> Tensor | None:
    """One optimiser's update; None when the module has no loss for it (yet): then it is left as it is."""
    turn, optimizer = module.turns[number], optimizers_of(module)[number]
    _forget_gradients(optimizer)
    total: Tensor | None = None
    batches = micro_batches(batch)
    with _only_its_parameters(module, optimizer):
        for index, micro_batch in enumerate(batches):
            module.gathering = index + 1 < len(batches)
            if isinstance(batch, Window):
                micro_batch = _to_device(module, micro_batch)
            with _gradients_kept_here(module) if module.gathering else nullcontext():
                loss = module.losses(micro_batch, turn)
                if loss is None:
                    return None
                share = _share(module, loss, counts, index)
                _backward(module, share)
            total = share.detach() if total is None else total + share.detach()
    _step(module, number, optimizer)
    return total


def _forget_gradients(optimizer: LightningOptimizer) -> None:
    """`zero_grad` without its entry in the profiler, which takes ten times as long as the thing itself."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def _to_device(module: ZooModule, micro_batch: Any) -> Any:
    """What Lightning does with the batches that it sees."""
    converted = module.trainer.precision_plugin.convert_input(micro_batch)
    return module.trainer.strategy.batch_to_device(converted)


def _share(module: ZooModule, loss: WeightedLoss, counts: Counts, index: int) -> Tensor:
    """The micro-batch's share of the loss of the whole update; what it consists of is noted for the log."""
    for name, part in loss.parts.items():
        expected = counts.of[index].get(name)
        if expected is None or (isinstance(expected, int) and isinstance(part.count, int) and expected != part.count):
            owner = type(module).__name__
            raise RuntimeError(f"{owner}.loss_counts says {expected} terms of {name!r}, {owner}.losses {part.count}")
        module.log_ratio(f"train/{name}", part.sum, part.count)
    return loss.share_of(counts.total)


def _backward(module: ZooModule, share: Tensor) -> None:
    # The ranks' gradients are averaged by the strategy; the sum is wanted, the division is in the share already.
    scaled = share * module.trainer.world_size if module.trainer.world_size > 1 else share
    # As in automatic optimisation: autocast is for the forward pass. What a loss computed in float32 stays so.
    device = module.device.type
    with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
        module.manual_backward(scaled)


def _step(module: ZooModule, number: int, optimizer: LightningOptimizer) -> None:
    if number == 0:
        optimizer.step()
    else:
        # Not through Lightning's wrapper: it would count this as another step of the training.
        module.trainer.strategy.optimizer_step(optimizer.optimizer, _nothing)
    for config in module.trainer.lr_scheduler_configs:
        if config.scheduler.optimizer is optimizer.optimizer:
            config.scheduler.step()  # pyright: ignore[reportCallIssue]  # plateau schedules are not built here


def _nothing() -> None:
    """The closure of a step whose gradients are there already."""


def optimizers_of(module: ZooModule) -> list[LightningOptimizer]:
    """The module's optimisers in the order of its turns."""
    found = module.optimizers()
    return found if isinstance(found, list) else [found]  # type: ignore[list-item,return-value]


@contextmanager
def _only_its_parameters(module: ZooModule, optimizer: LightningOptimizer) -> Iterator[None]:
    """No gradients for what the other optimisers train."""
    if len(module.turns) == 1:
        yield
        return
    module.toggle_optimizer(optimizer)
    try:
        yield
    finally:
        module.untoggle_optimizer(optimizer)


def _gradients_kept_here(module: ZooModule) -> AbstractContextManager[None]:
    """Ranks exchange gradients once an update, with its last micro-batch."""
    strategy = module.trainer.strategy
    return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()


def clip_gradients(optimizer: Optimizer, settings: UpdateSettings) -> Tensor | None:
    """Clips the gradients of one optimiser; returns their norm before, where it was asked for."""
    if not settings.clip:
        return None
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if settings.clip_by == "value":
        torch.nn.utils.clip_grad_value_(parameters, settings.clip)
        return None
    return torch.nn.utils.clip_grad_norm_(parameters, settings.clip)

"""Adam and its schedule from a few typed settings; the total number of steps is always the trainer's `max_steps`.

`trainer.estimated_stepping_batches` is never read: in Lightning 2.6 it builds the loader early and loses its position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mmzoo.errors import InputError

#: Layers whose parameters are positions or gains: shrinking them towards zero is no regularisation.
NOT_DECAYED = (nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


@dataclass(frozen=True)
class OptimizerSettings:
    """How the weights are updated."""

    name: Literal["adam", "adamw"] = "adamw"
    lr: float = 1e-4  #: peak learning rate
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0  #: of matrices and kernels; biases, norms and embeddings are left out
    warmup_steps: int = 0  #: linear from lr / warmup_steps
    schedule: Literal["constant", "cosine", "linear", "poly"] = "constant"  #: after the warm-up, over max_steps
    final_lr_ratio: float = 0.0  #: of all but constant, relative to lr
    poly_power: float = 0.9  #: of poly: (1 - progress) ** poly_power; 1 is linear
    fused: bool = False  #: the whole update in one kernel; rounds otherwise than the plain one

    def __post_init__(self) -> None:
        limits = {
            "lr": (self.lr >= 0, "0 or more; 1e-4 is usual"),
            "betas": (all(0 <= beta < 1 for beta in self.betas), "two numbers from 0 to below 1"),
            "eps": (self.eps > 0, "a number above 0; 1e-8 is usual"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "warmup_steps": (self.warmup_steps >= 0, "0 or more"),
            "final_lr_ratio": (0 <= self.final_lr_ratio <= 1, "a share of lr from 0 to 1"),
            # 0 would be constant, below 0 grows without end.
            "poly_power": (self.poly_power > 0, "a number above 0; 0.9 is usual"),
        }
        for name, (sound, advice) in limits.items():
            if not sound:
                raise InputError(f"optimizer.{name} is {getattr(self, name)}. Give {advice}.")


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters, split into decayed (two or more dimensions, no norm, no embedding) and the rest."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()
    for owner in module.modules():
        for parameter in owner.parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            (plain if parameter.ndim < 2 or isinstance(owner, NOT_DECAYED) else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def learning_rate_factor(settings: OptimizerSettings, total_steps: int) -> Callable[[int], float]:
    """The factor on `lr` at a step: the warm-up, then the schedule; it ends at `final_lr_ratio` at `total_steps`."""
    warmup, floor = settings.warmup_steps, settings.final_lr_ratio

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if settings.schedule == "constant":
            return 1.0
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return floor + (1 - floor) * _falling(settings, progress)

    return factor


def _falling(settings: OptimizerSettings, progress: float) -> float:
    """From 1 at progress 0 to 0 at progress 1."""
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return (1 - progress) ** (settings.poly_power if settings.schedule == "poly" else 1.0)


class Schedule(LambdaLR):
    """A learning-rate schedule that resumes at its step but keeps the options of the config it is resumed with.

    torch and Lightning restore lr, betas and weight decay from the checkpoint, silently undoing the user's own flags.
    """

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float]) -> None:
        self._options = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        super().__init__(optimizer, factor)

    def state_dict(self) -> dict[str, Any]:
        return {"last_epoch": self.last_epoch, "step_count": self._step_count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_epoch, self._step_count = state_dict["last_epoch"], state_dict["step_count"]
        for group, options, lr in zip(self.optimizer.param_groups, self._options, self.base_lrs, strict=True):
            group.update(options, initial_lr=lr, lr=lr * self.lr_lambdas[0](self.last_epoch))
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def build_optimizer(module: nn.Module, settings: OptimizerSettings, max_steps: int) -> dict[str, Any]:
    """What `configure_optimizers` returns. `max_steps`: the trainer's, -1 for none (then only `constant` works)."""
    if settings.schedule != "constant" and max_steps < 1:
        raise InputError(f"the schedule {settings.schedule!r} needs the number of steps. Set trainer.max_steps.")
    groups = parameter_groups(module, settings.weight_decay)
    if not groups:
        raise InputError(
            f"{type(module).__name__} has no trainable parameters. Unfreeze some, or run `mmzoo validate`."
        )
    kind: Callable[..., Optimizer] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    optimizer = kind(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=settings.fused or None)
    schedule = Schedule(optimizer, learning_rate_factor(settings, max_steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def trainable(module: nn.Module) -> Iterable[nn.Parameter]:
    """The parameters that the optimiser sees."""
    return (parameter for parameter in module.parameters() if parameter.requires_grad)

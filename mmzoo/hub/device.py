"""Where a command runs its model: the device that a user named, proven to be there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmzoo.errors import InputError

if TYPE_CHECKING:
    import torch


def usable_device(name: str | None) -> torch.device:
    """The device of a name; None or "auto": the first GPU, or else the CPU. InputError: no such device here.

    A device that holds no values ("meta") is none to compute on.
    """
    import torch

    if name in (None, "auto"):
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as fault:  # torch raises either, by the kind of device
        reason = " ".join(str(fault).split(". ")[0].split())
        raise InputError(f"--device {name} cannot be used here ({reason}). Try --device cpu.") from fault
    return device

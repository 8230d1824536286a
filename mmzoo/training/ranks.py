"""What the ranks of a training tell each other, beside gradients. In a single process everything returns at once."""

from __future__ import annotations

import os
from typing import TypeVar

import torch
import torch.distributed as dist

from mmzoo.errors import InputError

Thing = TypeVar("Thing")
#: Variables in which a launcher tells a process its place: torchrun, Lightning, Slurm.
PLACES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


def is_first_process() -> bool:
    """Whether this process is the first of its training, as its launcher says, before ranks talk to each other."""
    return all(os.environ.get(name, "0") == "0" for name in PLACES)


def several_ranks() -> bool:
    """Whether this process is one of several ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def from_all_ranks(own: Thing) -> list[Thing]:
    """What every rank passed, in the order of the ranks; every rank must ask."""
    if not several_ranks():
        return [own]
    everyone: list[Thing] = [own] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    return everyone


def check_equal_ranks(order: dict[str, str]) -> None:
    """Before step 1: every rank has the same data in the same order, so each will have the same number of batches.

    `order`: hashes of the data and of the order. InputError, naming the ranks, where they differ.
    """
    everyone = from_all_ranks(order)
    odd = [rank for rank, of_rank in enumerate(everyone) if of_rank != everyone[0]]
    if odd:
        raise InputError(
            f"ranks {', '.join(map(str, odd))} read other data, or another order, than rank 0. "
            f"Give all of them the same shards and the same config"
        )


def collective_device() -> torch.device:
    """Where a tensor must be to be sent to other ranks."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")

"""What the ranks of a training tell each other, beside gradients. In a single process everything returns at once."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]  # documented there

from mmzoo.errors import InputError

Thing = TypeVar("Thing")
#: Variables in which a launcher tells a process its place: torchrun, Lightning, Slurm.
PLACES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


def is_first_process() -> bool:
    """Whether this process is the first of its training, as its launcher says, before ranks talk to each other."""
    return all(os.environ.get(name, "0") == "0" for name in PLACES)


def agreed_name(own: str, key: str, wait: timedelta = timedelta(minutes=5)) -> str:
    """What the first process of a launched training calls a thing, before ranks talk; alone, `own`.

    The processes of torchrun ask the store that it keeps for them. InputError: no answer within `wait`, or another
    launcher of several processes, which has no such store.
    """
    tasks = os.environ.get("SLURM_NTASKS", "1") if "SLURM_PROCID" in os.environ else "1"
    if int(os.environ.get("WORLD_SIZE", tasks)) < 2:
        return own
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise InputError("several processes were started, each with a clock of its own. Name the run folder with --run")
    try:
        store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=wait)
        key = f"mmzoo/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{key}"
        if is_first_process():
            store.set(key, own)
        return store.get(key).decode()
    except (RuntimeError, KeyError, ValueError) as fault:
        raise InputError(f"the processes cannot agree on a run folder ({fault}). Name it with --run") from None


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

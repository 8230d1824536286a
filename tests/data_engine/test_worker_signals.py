"""Real worker processes: a signal for the whole job reaches them as well."""

import multiprocessing
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from data_engine.loader import LoaderSettings, make_loader


def size_only(sample, random):
    time.sleep(0.01)
    return {"size": np.array(sample.fields["image"].shape[:2])}


def from_a_stranger(workers, number):
    """The signal as a scheduler sends it: not from the workers' parent."""
    pids = [worker.pid for worker in workers]
    subprocess.run([sys.executable, "-c", f"import os\nfor pid in {pids}: os.kill(pid, {int(number)})"], check=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_go_on_when_somebody_signals_the_job(shard_folder, number):
    loader = make_loader(LoaderSettings(shard_folder(12), global_batch=2, workers=2), size_only, steps=8)
    batches = iter(loader)
    first = next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    from_a_stranger(workers, number)
    rest = list(batches)
    assert [int(p) for batch in [first, *rest] for p in batch["positions"]] == list(range(16))
    assert all(worker.is_alive() for worker in workers)


def test_their_parent_can_still_end_them(shard_folder):
    loader = make_loader(LoaderSettings(shard_folder(12), global_batch=2, workers=1), size_only, steps=4)
    batches = iter(loader)
    next(batches)
    (worker,) = multiprocessing.active_children()
    worker.terminate()
    with pytest.raises((RuntimeError, EOFError)):  # EOFError: it ended while a batch was handed over
        list(batches)
    assert worker.exitcode == 0

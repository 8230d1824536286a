"""Starting, killing and comparing runs of the tiny training in processes of their own."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("run_command.py")
CLOCK = {"samples_per_second", "data_wait_share", "save_seconds"}


def start(folder, *arguments):
    """The command as a user starts it, in a process group of its own; its stderr goes to `stderr.txt`."""
    environment = {**os.environ, "PYTHONPATH": f"{SCRIPT.parents[3]}:{SCRIPT.parent}", "OMP_NUM_THREADS": "1"}
    with (folder / "stderr.txt").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), *map(str, arguments)],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )


def finish(process, timeout=200):
    """The exit code; negative for a signal. The whole group is ended when it takes too long."""
    try:
        return process.wait(timeout)
    finally:
        kill_group(process)


def kill_group(process):
    """`kill -9` of the command with its workers and ranks."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(20)


def wait_for(process, condition, timeout=120):
    """Returns as soon as the condition holds; the process must live until then."""
    end = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end, "it never came so far"
        time.sleep(0.01)


def kill_when(process, condition, delay=0.0, timeout=120):
    """Waits for the condition, then `delay` seconds more, then kills everything; whether that caught it alive."""
    wait_for(process, condition, timeout)
    time.sleep(delay)
    alive = process.poll() is None
    kill_group(process)
    return alive


def write_config(path, base, sections):
    """A config file made of another one and changes, deeply merged."""

    def merge(old, new):
        return {**old, **{k: merge(old[k], v) if isinstance(old.get(k), dict) else v for k, v in new.items()}}

    path.write_text(yaml.safe_dump(merge(yaml.safe_load(base.read_text()), sections)))
    return path


def rows_written(run):
    """Finished lines of metrics.csv."""
    file = run / "metrics.csv"
    return file.read_text().count("\n") - 1 if file.is_file() else 0


def table(run):
    """The rows of metrics.csv without what depends on the clock; empty cells left out."""
    with (run / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in CLOCK and v != ""} for row in csv.DictReader(file)]


def same(one, other):
    """Bit-equality of nested states."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def same_checkpoints(one, other):
    """Weights, optimiser, schedule, counters, random states and data state of two checkpoints, to the bit."""
    states = [torch.load(folder / "trainer.ckpt", weights_only=True) for folder in (one, other)]
    return (
        all(same(*(state[key] for state in states)) for key in ("state_dict", "optimizer_states", "lr_schedulers"))
        and all(states[0][key] == states[1][key] for key in ("global_step", "epoch"))
        and same(*(load_file(folder / "rng.safetensors") for folder in (one, other)))
        and same(*(load_file(folder / "model/model.safetensors") for folder in (one, other)))
        and (one / "data_state.json").read_text() == (other / "data_state.json").read_text()
    )

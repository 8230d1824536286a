"""One writer a folder, whatever becomes of the writer."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

from mmzoo.errors import InputError
from mmzoo.folder_lock import LOCK_FILE, InUseError, only_writer

HOLD = """
import sys, time
from pathlib import Path
from mmzoo.folder_lock import only_writer
with only_writer(Path(sys.argv[1]), "a test", "Wait"):
    print("held", flush=True)
    time.sleep(60)
"""


def lock(folder):
    return only_writer(folder, "counting", "Wait for it")


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_writer_is_told_who_the_first_is(holder, tmp_path):
    with pytest.raises(InUseError) as refusal, lock(tmp_path):
        pass
    assert str(refusal.value).startswith(
        f"{tmp_path} is in use for counting by process {holder.pid} on {os.uname()[1]}"
    )
    assert str(refusal.value).endswith("). Wait for it")
    assert holder.poll() is None
    assert (tmp_path / LOCK_FILE).exists()


def test_kill_9_of_the_holder_frees_the_folder(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert json.loads((tmp_path / LOCK_FILE).read_text())["process"] == holder.pid
    with lock(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_block_frees_the_folder(tmp_path):
    with pytest.raises(KeyError), lock(tmp_path):
        raise KeyError
    with lock(tmp_path), pytest.raises(InUseError), lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_forked_worker_that_outlives_the_holder_does_not_hold_the_lock(tmp_path):
    fork = (
        "    if not (child := os.fork()): time.sleep(60)\n    print(child, flush=True)\n    os.kill(os.getpid(), 9)\n"
    )
    script = "import os\n" + HOLD.replace('    print("held", flush=True)\n    time.sleep(60)\n', fork)
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    try:
        assert process.wait(20) == -signal.SIGKILL
        with lock(tmp_path):
            os.kill(worker, 0)  # it lives
    finally:
        os.kill(worker, signal.SIGKILL)
        process.stdout.close()


def test_a_lock_file_that_was_removed_meanwhile_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    real, removed = fcntl.flock, []

    def slow(descriptor, how):
        if not removed:
            removed.append((tmp_path / LOCK_FILE).unlink())
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    with lock(tmp_path), pytest.raises(InUseError), lock(tmp_path):
        pass


def test_an_unsigned_lock_still_holds(tmp_path):
    with lock(tmp_path):
        (tmp_path / LOCK_FILE).write_text("{")
        with pytest.raises(InUseError, match="by another process"), lock(tmp_path):
            pass


def test_a_file_system_without_locks_is_noted(tmp_path, monkeypatch, capsys):
    def refuse(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock(tmp_path):
        pass
    assert capsys.readouterr().err == (
        f"note: no locks on this file system: nothing keeps a second writer out of {tmp_path}\n"
    )


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / LOCK_FILE).mkdir()
    with pytest.raises(InputError, match="cannot be written"), lock(tmp_path):
        pass

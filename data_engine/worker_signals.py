"""Signals in the loader's worker processes: a stop is for the main process to decide.

Ctrl-C in a terminal, and many schedulers, signal every process of a job. A worker that obeyed would break the batch
that the main process still waits for, and with it the orderly stop (finish the step, save, exit).
"""

from __future__ import annotations

import os
import signal
import threading


def leave_signals_to_the_parent() -> None:
    """Called in a worker when it starts: ignores SIGINT, and SIGTERM unless the parent sent it.

    A worker whose parent has died notices that by itself (torch's watchdog).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey_only, args=(os.getppid(),), daemon=True, name="sigterm").start()


def _obey_only(parent: int) -> None:
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == parent:
            os._exit(0)

"""One process that denoises scenes: how the client starts it, and what it does until the client is gone."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from .. import progress

#: Marks a word of how far a task is among answers, and the least seconds between two of them.
PROGRESS = "progress"
PAUSE = 0.5

# Not multiprocessing's own way, which runs the user's script again in each process, or the command line's imports.
_SCRIPT = (
    "import sys; sys.path[:] = sys.argv[3:];"
    "from hsidenoise.batch.process import serve; from hsidenoise.batch.workers import attempt;"
    "serve(int(sys.argv[1]), int(sys.argv[2]), attempt)"
)


def start(threads: int, gpu: int | None = None) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start a process; tasks go into the connection, answers come out of it.

    Parameters
    ----------
    threads
        For computing.
    gpu
        Which of the GPUs this process sees is the new one's only; all where None.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if gpu is not None:
        visible = [g for g in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if g]
        environment["CUDA_VISIBLE_DEVICES"] = visible[gpu] if visible else str(gpu)
    ours, theirs = Pipe()
    command = [sys.executable, "-c", _SCRIPT, str(theirs.fileno()), str(os.getpid()), *sys.path]
    # Ctrl-C goes to all processes of a terminal; the client decides, and these never hear of it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = subprocess.Popen(
            command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return process, ours


def serve(pipe: int, client: int, work: Callable[[Any], Any]) -> NoReturn:
    """A process's life: tasks come through the pipe, the answers of `work` go back, until the client closes it."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    _die_with(client)
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
    connection = Connection(pipe)
    told = 0.0

    def tell(share: float) -> None:
        nonlocal told
        if time.monotonic() - told > PAUSE:
            told = time.monotonic()
            connection.send((PROGRESS, share))

    progress.LISTENER.set(tell)
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            connection.send(work(connection.recv()))
    os._exit(0)  # all files are closed; taking the libraries down would take longer than the next batch's start


def _die_with(client: int) -> None:
    """Have the system end this process when the client is killed (Linux), so that nobody writes behind its back."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None
    if prctl is not None:
        prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != client:  # it was killed before that
        os._exit(0)

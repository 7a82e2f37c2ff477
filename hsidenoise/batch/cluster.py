"""The same scenes on a Dask cluster: what `hsidenoise.batch.workers.Workers` is to one machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

from ..errors import HSIDenoiseError, UsageError
from .workers import LOOK, Outcome, Task, attempt


class Cluster:
    """A context manager of tasks on an existing cluster, or on a local one that ends with it.

    Parameters
    ----------
    address
        Of the scheduler (``tcp://host:8786``), or ``local``.
    jobs
        Processes of a local cluster.

    Raises
    ------
    UsageError
        Dask is not installed, or no scheduler answers.
    """

    def __init__(self, address: str, jobs: int) -> None:
        try:
            from distributed import Client, LocalCluster
        except ImportError:
            raise UsageError("--scheduler: needs Dask; install it with pip install 'hsidenoise[dask]'") from None
        for name in ("distributed", "distributed.client"):  # what matters is said here, in one line
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._own: Any = None
        self._tasks: dict[Any, tuple[Task, float]] = {}
        try:
            if address == "local":
                self._own = LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
            self._client = Client(self._own or address, timeout=20)
        except (OSError, ValueError) as error:
            self.stop()
            raise UsageError(f"--scheduler {address}: no scheduler answers there ({_line(error)})") from error

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def idle(self) -> bool:
        """Whether another task can be given: two for each thread of the cluster, so that none waits for work."""
        threads = sum(self._client.nthreads().values())
        return bool(len(self._tasks) < max(2 * threads, 1))

    def give(self, task: Task) -> None:
        """Send a task to the cluster."""
        future = self._client.submit(attempt, task, pure=False, retries=0)
        self._tasks[future] = task, time.monotonic()

    def finished(self) -> Iterator[Outcome]:
        """Wait for something to happen, at most half a second; what has ended meanwhile.

        Raises
        ------
        HSIDenoiseError
            The scheduler went away; what it had finished is not known, and is found out by the next batch.
        """
        from distributed import wait

        lost = False
        try:
            if self._tasks:
                wait(list(self._tasks), timeout=LOOK, return_when="FIRST_COMPLETED")
        except TimeoutError:
            pass  # nothing has ended
        except CancelledError:  # nobody else cancels
            lost = True
        if lost or self._client.status != "running":
            raise HSIDenoiseError("the Dask scheduler went away; start it again and repeat the command")
        ended = [f for f in self._tasks if f.done()]
        for future in ended:
            task, since = self._tasks.pop(future)
            status, detail = self._answer(task, future)
            yield Outcome(task, status, time.monotonic() - since, detail)

    def shares(self) -> dict[str, float]:
        """None is known."""
        return {}

    def _answer(self, task: Task, future: Any) -> tuple[str, dict[str, Any]]:
        if future.status == "finished":
            answer: tuple[str, dict[str, Any]] = future.result()
            return answer
        return "died", {"error": f"{task.source}: its worker was lost ({_line(future.exception())})"}

    def stop(self) -> None:
        """Drop what is in work, and end a cluster of our own."""
        client = getattr(self, "_client", None)
        if client is not None:
            if client.status == "running":
                client.cancel(list(self._tasks), force=True)
            client.close(timeout=5)
        self._tasks.clear()
        if self._own is not None:
            self._own.close()
            self._own = None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

"""The same scenes on a Dask cluster: what `hsidenoise.batch.workers.Workers` is to one machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import progress
from ..errors import HSIDenoiseError, UsageError
from .leftovers import clear, folder_for
from .workers import LOOK, Answer, GivenUpError, Outcome, Task, attempt

#: Strips for each thread of a cluster, as some workers are slower than others; and at least, as more may join.
STRIPS, LEAST = 4, 32
#: Seconds between words of how far a worker is.
WORDS = 2.0
#: A status that only workers and the cluster know.
LARGE = "large"
GONE = "the Dask scheduler went away; start it again and repeat the command"


@dataclass
class _Work:
    """A scene on the cluster.

    Parameters
    ----------
    task
        What is to be done.
    given
        When it was given to the cluster.
    begun
        When a worker first was heard of; 0 before that.
    folder
        Of its strips, if it was cut.
    shares
        How far each of `parts` has come.
    """

    task: Task
    given: float
    begun: float = 0.0
    folder: Path | None = None
    parts: int = 1
    shares: dict[int, float] = field(default_factory=dict)


class Cluster:
    """A context manager of tasks on an existing cluster, or on a local one that ends with it.

    Parameters
    ----------
    address
        Of the scheduler (``tcp://host:8786``), or ``local``.
    jobs
        Processes of a local cluster.
    timeout
        Seconds after which a task is given up; 0 is no limit.
    large
        Bytes of samples beyond which a scene is cut in strips.

    Raises
    ------
    UsageError
        Dask is not installed, or no scheduler answers.
    """

    def __init__(self, address: str, jobs: int, *, timeout: float = 0.0, large: float = float("inf")) -> None:
        try:
            from distributed import Client, LocalCluster
        except ImportError:
            raise UsageError("--scheduler: needs Dask; install it with pip install 'hsidenoise[dask]'") from None
        for name in ("distributed", "distributed.client"):  # what matters is said here, in one line
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._own: Any = None
        self._works: dict[Any, _Work] = {}
        self._timeout, self._large = timeout, large
        try:
            if address == "local":
                self._own = LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
            self._client = Client(self._own or address, timeout=20)
        except (OSError, ValueError, TypeError, RuntimeError) as error:  # the last two: TLS asked for, and not set up
            self.stop()
            raise UsageError(f"--scheduler {address}: no scheduler answers there ({_line(error)})") from error
        self._topic = f"hsidenoise-{self._client.id}"
        self._client.subscribe_topic(self._topic, self._hear)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def idle(self) -> bool:
        """Whether another task can be given: two for each thread of the cluster, so that none waits for work."""
        return len(self._works) < max(2 * self._threads(), 1)

    def _threads(self) -> int:
        try:
            return sum(self._client.nthreads().values())
        except OSError as error:
            raise HSIDenoiseError(GONE) from error

    def give(self, task: Task) -> None:
        """Send a task to the cluster."""
        # A worker may be lost when it has written the output and not told so yet: the next must not stumble over that.
        task = task._replace(options=replace(task.options, overwrite=True))
        work = _Work(task, time.monotonic())
        self._works[self._submit(work, 0, whole, task, self._large)] = work

    def _submit(self, work: _Work, part: int, do: Callable[..., Answer], *arguments: Any) -> Any:
        words = {"topic": self._topic, "output": work.task.output, "part": part}
        return self._client.submit(watched, words, self._timeout, do, *arguments, pure=False, retries=0)

    def _cut(self, work: _Work, folder: Path) -> Any:
        """Give a scene to many workers; the future of its output."""
        from . import strips

        task = work.task
        work.parts = count = max(STRIPS * self._threads(), LEAST)
        work.shares.clear()
        start = self._submit(work, -1, strips.prepared, task, folder)
        parts = [self._submit(work, n, strips.strip, task, start, folder, n, count) for n in range(count)]
        return self._submit(work, -1, strips.assembled, task, start, folder, parts)

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """Note how far a worker says it is (in a thread of the client's own)."""
        word = event[1]
        for work in list(self._works.values()):
            if work.task.output == word["output"]:
                work.begun = work.begun or time.monotonic()
                if word["part"] >= 0:
                    work.shares[word["part"]] = word["share"]

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
            if self._works:
                wait(list(self._works), timeout=LOOK, return_when="FIRST_COMPLETED")
        except TimeoutError:
            pass  # nothing has ended
        except CancelledError:  # nobody else cancels
            lost = True
        if lost or self._client.status != "running":
            raise HSIDenoiseError(GONE)
        for future in [f for f in self._works if f.done()]:
            work = self._works.pop(future)
            status, detail = self._answer(work.task, future)
            if status == LARGE:
                try:
                    work.folder = folder_for(work.task.output)
                except OSError as error:
                    status, detail = "failed", {"error": f"{work.task.output}: cannot be written ({error.strerror})"}
                else:
                    self._works[self._cut(work, work.folder)] = work
                    continue
            yield self._ended(work, status, detail)
        yield from self._overdue()

    def _overdue(self) -> Iterator[Outcome]:
        """Give up what takes too long; workers that can still tell do so by themselves a little earlier."""
        if not self._timeout:
            return
        now = time.monotonic()
        for future, work in list(self._works.items()):
            if work.begun and now - work.begun > self._timeout + WORDS:
                del self._works[future]
                self._client.cancel([future], force=True)
                yield self._ended(work, "died", {"error": f"{work.task.source}: {_too_long(self._timeout)}"})

    def _ended(self, work: _Work, status: str, detail: dict[str, Any]) -> Outcome:
        if work.folder is not None:
            clear(work.folder)
        return Outcome(work.task, status, time.monotonic() - work.given, detail)

    def shares(self) -> dict[str, float]:
        """See `Pool`; of a scene that was cut, the mean of its strips."""
        return {w.task.output: sum(w.shares.values()) / w.parts for w in list(self._works.values()) if w.begun}

    def _answer(self, task: Task, future: Any) -> Answer:
        if future.status == "finished":
            answer: Answer = future.result()
            return answer
        return "died", {"error": f"{task.source}: its worker was lost ({_line(future.exception())})"}

    def stop(self) -> None:
        """Drop what is in work, and end a cluster of our own."""
        client = getattr(self, "_client", None)
        if client is not None:
            if client.status == "running":
                client.cancel(list(self._works), force=True)
            client.close(timeout=5)
        for work in self._works.values():
            if work.folder is not None:
                clear(work.folder)
        self._works.clear()
        if self._own is not None:
            self._own.close()
            self._own = None


def whole(task: Task, large: float) -> Answer:
    """On a worker: denoise a scene, unless it is too large for one."""
    from .strips import too_large
    from .workers import guarded

    if large < float("inf"):
        status, found = guarded(task.source, lambda: too_large(task, large))
        if status != "done":
            return status, found
        if found:
            return LARGE, {}
    return attempt(task)


def watched(words: dict[str, Any], timeout: float, do: Callable[..., Answer], *arguments: Any) -> Answer:
    """On a worker: do it, say how far it is, and leave off when nobody waits for it any more or it takes too long."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()
    topic, word = words["topic"], {k: words[k] for k in ("output", "part")}
    began = told = time.monotonic()

    def tell(share: float) -> None:
        nonlocal told
        now = time.monotonic()
        if timeout and now - began > timeout:
            raise GivenUpError(_too_long(timeout))
        state = worker.state.tasks.get(key)
        if state is None or state.state == "cancelled":
            raise GivenUpError("was cancelled")
        if now - told > WORDS:
            told = now
            worker.log_event(topic, word | {"share": share})

    worker.log_event(topic, word | {"share": 0.0})
    token = progress.LISTENER.set(tell)
    try:
        answer = do(*arguments)
    finally:
        progress.LISTENER.reset(token)
    worker.log_event(topic, word | {"share": 1.0})
    return answer


def _too_long(timeout: float) -> str:
    return f"ran longer than {timeout / 60:g} minutes (--timeout)"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

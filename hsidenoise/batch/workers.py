"""Processes that denoise one scene after the other, and outlive none of each other's deaths."""

from __future__ import annotations

import os
import subprocess
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import HSIDenoiseError
from ..settings import RunOptions
from .process import PROGRESS, start

if TYPE_CHECKING:
    from ..run import Elsewhere

#: Seconds between looks at the memory of the processes, and between their words of how far they are.
LOOK = 0.5
#: Seconds a process has to tidy up before it is killed.
GRACE = 10.0


class Task(NamedTuple):
    """One scene to denoise, and where its small picture goes, if one is wanted."""

    source: str
    output: str
    options: RunOptions
    picture: Path | None = None


class Outcome(NamedTuple):
    """What became of a task: ``done``, ``failed`` (an error to tell) or ``died`` (worth another try)."""

    task: Task
    status: str
    seconds: float
    detail: dict[str, Any]


#: A status as in an `Outcome`, and its detail.
Answer = tuple[str, Any]


class GivenUpError(Exception):
    """Work that nobody waits for any more, or that took too long."""


class Pool(Protocol):
    """What denoises tasks: processes of this machine, or a cluster."""

    def __enter__(self) -> Pool:
        """Start."""

    def __exit__(self, *exc: object) -> None:
        """Stop."""

    @property
    def idle(self) -> bool:
        """Whether another task can be given."""

    def give(self, task: Task) -> None:
        """Start a task."""

    def finished(self) -> Iterator[Outcome]:
        """Wait for something to happen, not long; what has ended meanwhile."""

    def shares(self) -> dict[str, float]:
        """How far tasks in work have come, by output, where that is known."""

    def stop(self) -> None:
        """Drop tasks in work, which leave nothing behind."""


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    place: int
    task: Task | None = None
    since: float = 0.0
    share: float = 0.0
    doomed: str = ""


class Workers:
    """A context manager of processes that live until it ends; each is replaced when it dies.

    Parameters
    ----------
    jobs
        Processes.
    threads
        Of each, for computing.
    timeout
        Seconds after which a task's process is ended; 0 is no limit.
    memory
        Bytes all processes together may take: beyond that the youngest task is ended, to be tried again.
    gpus
        GPUs that are shared out among the processes.
    """

    def __init__(
        self, jobs: int, threads: int, *, timeout: float = 0.0, memory: float = float("inf"), gpus: int = 0
    ) -> None:
        self._threads, self._timeout, self._memory, self._gpus = threads, timeout, memory, gpus
        self._jobs = jobs
        self._workers: list[_Worker] = []
        self._looked = 0.0
        self.crowded = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def idle(self) -> bool:
        """Whether another task can be given: never two at once after memory ran out, until all are done."""
        busy = sum(w.task is not None for w in self._workers)
        self.crowded &= busy > 0
        return busy < (1 if self.crowded else self._jobs)

    def give(self, task: Task) -> None:
        """Start a task on an idle process."""
        worker = next((w for w in self._workers if w.task is None), None)
        if worker is None:
            worker = self._new()
        worker.task, worker.since, worker.share = task, time.monotonic(), 0.0
        with suppress(BrokenPipeError):  # it died while it was idle: the next look finds it
            worker.pipe.send(task)

    def finished(self) -> Iterator[Outcome]:
        """Wait for something to happen, at most half a second; what has ended meanwhile."""
        said = wait([worker.pipe for worker in self._workers], LOOK)  # a pipe's end too, when its process dies
        for worker in [w for w in self._workers if w.pipe in said or w.process.poll() is not None]:
            outcome = self._collect(worker)
            if outcome is not None:
                yield outcome
        self._watch()

    def _collect(self, worker: _Worker) -> Outcome | None:
        task, seconds = worker.task, time.monotonic() - worker.since
        try:
            while worker.pipe.poll():
                status, detail = worker.pipe.recv()
                if status == PROGRESS:
                    worker.share = detail
                    continue
                worker.task = None
                assert task is not None
                return Outcome(task, status, seconds, detail)
            if worker.process.poll() is None:
                return None
        except (EOFError, OSError):
            pass  # it died before it could answer
        code = _ended(worker, GRACE)
        self._workers.remove(worker)
        worker.pipe.close()
        if task is None:
            return None
        why = worker.doomed or (f"killed by signal {-code}" if code < 0 else f"ended with code {code}")
        return Outcome(task, "died", seconds, {"error": f"{task.source}: its process {why}"})

    def shares(self) -> dict[str, float]:
        """See `Pool`."""
        return {w.task.output: w.share for w in self._workers if w.task is not None}

    def _watch(self) -> None:
        """End tasks that take too long or too much memory."""
        now = time.monotonic()
        running = [w for w in self._workers if w.task is not None and not w.doomed]
        for worker in running:
            if self._timeout and now - worker.since > self._timeout:
                self._end(worker, f"ran longer than {self._timeout / 60:g} minutes (--timeout)")
        if now - self._looked < LOOK or not running:
            return
        self._looked = now
        if sum(_resident(w.process.pid) for w in self._workers) > self._memory:
            self.crowded = True
            youngest = max(running, key=lambda w: w.since)
            self._end(youngest, f"needed more than {self._memory / 2**30:.2g} GiB with the others (--max-memory)")

    def _end(self, worker: _Worker, why: str) -> None:
        worker.doomed = why
        worker.process.kill()

    def _new(self) -> _Worker:
        place = min(set(range(self._jobs)) - {w.place for w in self._workers})
        self._workers.append(_Worker(*start(self._threads, place % self._gpus if self._gpus else None), place))
        return self._workers[-1]

    def stop(self) -> None:
        """End all processes; tasks in work are dropped and leave nothing behind."""
        for worker in self._workers:
            worker.pipe.close()  # an idle one leaves by itself
            if worker.task is not None:
                worker.process.terminate()
        deadline = time.monotonic() + GRACE
        for worker in self._workers:
            _ended(worker, max(deadline - time.monotonic(), 0))
        self._workers.clear()


def _ended(worker: _Worker, grace: float) -> int:
    """The exit code of a process that should be ending; it is killed after `grace` seconds."""
    try:
        return worker.process.wait(grace)
    except subprocess.TimeoutExpired:
        worker.process.kill()
        return worker.process.wait()


def _resident(pid: int) -> int:
    """Bytes of memory a process takes; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def attempt(task: Task, elsewhere: Elsewhere | None = None) -> Answer:
    """Denoise one scene, or put it together; whatever goes wrong is told, not raised."""
    from ..run import run

    def work() -> dict[str, Any]:
        record = run(task.source, task.output, task.options, quiet=True, elsewhere=elsewhere)
        if task.picture is not None:
            from .quicklook import quicklook  # a file that cannot be read must not wait for what draws

            quicklook(task.source, task.output, task.options, record["bands_denoised"], task.picture)
        return brief(record)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        status, detail = guarded(task.source, work)
    return status, detail | ({"warnings": [" ".join(str(w.message).split()) for w in said]} if status == "done" else {})


def guarded(source: str, work: Callable[[], Any]) -> Answer:
    """``("done", what it returns)``, or ``failed`` or ``died`` as in an `Outcome`."""
    try:
        return "done", work()
    except GivenUpError as error:
        return "died", {"error": f"{source}: {error}"}
    except HSIDenoiseError as error:
        return "failed", {"error": " ".join(str(error).split()), "kind": type(error).__name__}
    except MemoryError as error:
        return "died", {"error": f"{source}: not enough memory ({error})"}
    except Exception as error:  # a fault of ours must not take other scenes with it
        return "failed", {
            "error": f"{source}: unexpected {type(error).__name__}: {' '.join(str(error).split())}",
            "kind": type(error).__name__, "traceback": traceback.format_exc(),
        }  # fmt: skip



def brief(record: dict[str, Any]) -> dict[str, Any]:
    """Of what `hsidenoise.run.run` returns, what is worth keeping for each scene of thousands."""
    tiles, front, measured = record["tiles"], record["normalisation"], record.get("measured")
    kept: dict[str, Any] = {
        "denoised": len(record["bands_denoised"]),
        "passed": dict(Counter(record["bands_passed"].values())),
        "frontend": front["frontend"],
        "rank": front.get("rank"),
        "defects": {k: v for k, v in front.get("defects", {}).items() if k != "bands"},
        "unconverged": sum(not tile["converged"] for tile in tiles),
        "tiles": len(tiles),
        "seconds": record["seconds"],
        "gates_met": record.get("gates_met", []),
    }
    if measured is not None:
        kept["measured"] = {key: measured[key] for key in ("summary", "verdict", "sam_to_input", "quality")}
    return kept

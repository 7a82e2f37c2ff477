"""The one process of a batch that hands out scenes, keeps the books and answers for both."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import heapq
import json
import math
import os
import socket
import sys
import time
import warnings
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__, progress
from ..errors import HSIDenoiseError, HSIDenoiseWarning, OutputExistsError, UsageError, WriteError, printable
from ..settings import BatchOptions, DenoiseOptions, RunOptions, to_dict
from . import page
from .leftovers import clear_all
from .manifest import NAME, Claim, Identity, Last, Manifest, identity
from .scenes import BOOKS, PAGE, Scene
from .workers import Outcome, Pool, Task, Workers

#: Seconds between looks at scenes that another batch has claimed.
PATIENCE = 5.0
#: Memory that a process is reckoned to take, where jobs are chosen by what is free.
PER_JOB = 3 << 29
#: To tell beforehand how long a batch takes, in core seconds: a process starts in, a scene takes at least, and for each
#: pixel of an eigen-image, of which a scene has as many as bands, up to so many; measuring adds a share, a report more.
START, LEAST, PACE, IMAGES, MEASURING, REPORT = 3.0, 0.03, 6e-6, 8, 1.33, 3.0
#: And what memory: bytes of a process, and for each sample and pixel of its scene; tiles keep it below PER_JOB.
EMPTY, PER_SAMPLE, PER_PIXEL = 350e6, 30, 100
#: Options that change nothing in what is written.
_IDLE = ("device", "tile", "overwrite", "fail_on", "config")


#: By output: the scene, its claim, and its file's identity before it was read.
_Claims = dict[str, tuple[Scene, Claim, Identity]]


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Client:
    """One call of `batch`: its options, its manifest, and what it has seen."""

    def __init__(self, folder: Path, options: BatchOptions, weights: Mapping[str, str], *, quiet: bool) -> None:
        self.folder, self.options, self.weights, self.quiet = folder, options, weights, quiet
        self.manifest = Manifest(folder / BOOKS / NAME)
        shared = {f.name for f in dataclasses.fields(DenoiseOptions)}
        self.asked = {k: v for k, v in to_dict(options).items() if k in shared and k not in _IDLE}
        told = json.dumps([self.asked, weights, options.reports], sort_keys=True, default=str)
        self.key = hashlib.sha256(told.encode()).hexdigest()[:16]
        self.counts: Counter[str] = Counter()
        self.failures: list[dict[str, str]] = []
        self.gates: list[dict[str, Any]] = []
        self.todo = 0

    def done(self, scene: Scene, last: Last | None) -> bool:
        """Whether its last record says so of this scene as it is, with these options and weights, and output."""
        if last is None or last.status != "done" or last.key != self.key:
            return False
        try:
            now = identity(scene.source, checksum=self.options.checksum)
            result = identity(self.folder / scene.output, checksum=self.options.checksum)
        except OSError:
            return False
        return now.same(last.input) and result.same(last.result)

    def ours(self, scene: Scene) -> bool:
        """Whether the output that is there was written by a batch, or may have been when it was cut off."""
        last = self.manifest.latest().get(scene.output)
        if last is None:
            return False
        if last.status == "started":
            return True
        try:
            return identity(self.folder / scene.output, checksum=False).same(last.result)
        except OSError:
            return False

    def waiting(self, scenes: list[Scene]) -> deque[Scene]:
        """Scenes that are not done yet."""
        latest = self.manifest.latest()
        return deque(s for s in scenes if not self.done(s, latest.get(s.output)))

    def run(self, scenes: list[Scene], jobs: int, gpus: int = 0) -> dict[str, Any]:
        """Denoise what is not done yet, in so many processes that share the GPUs out among them."""
        began = time.monotonic()
        waiting = self.waiting(scenes)
        self.counts["skipped"] = len(scenes) - len(waiting)
        self.todo = len(waiting)
        if not self.options.scheduler:  # there one scene may take several workers
            # Not what is left of them: the threads of each shape the last bits of outputs.
            jobs = min(jobs, len(scenes))
        if waiting:
            silent = self.quiet or not sys.stderr.isatty()
            with (
                self._pool(jobs, gpus) as workers,
                progress.track(len(waiting), "batch", quiet=silent, unit="scene") as bar,
            ):
                self._drive(waiting, workers, bar)
        shown = self.folder / PAGE
        if not _newer(shown, self.manifest.path):
            try:
                page.write(self.folder, self.folder / BOOKS, self.manifest.records())
            except WriteError as error:  # what became of the scenes must be told all the same
                warnings.warn(str(error), HSIDenoiseWarning, stacklevel=2)
        return {
            "folder": str(self.folder), "scenes": len(scenes),
            **{k: self.counts[k] for k in ("done", "skipped", "failed", "elsewhere")}, "left": len(waiting),
            "failures": self.failures, "gates_met": self.gates, "report": str(shown) if shown.exists() else "",
            "jobs": jobs, "seconds": round(time.monotonic() - began, 2),
        }  # fmt: skip

    def _pool(self, jobs: int, gpus: int) -> Pool:
        if self.options.scheduler:
            from .cluster import Cluster

            large = self.options.split * 2**30 or float("inf")
            return Cluster(self.options.scheduler, jobs, timeout=60 * self.options.timeout, large=large)
        memory = self.options.max_memory * 2**30 or float("inf")
        return Workers(jobs, max(1, cores() // jobs), timeout=60 * self.options.timeout, memory=memory, gpus=gpus)

    def _drive(self, waiting: deque[Scene], workers: Pool, bar: progress.Progress) -> None:
        claims: _Claims = {}
        tries: Counter[str] = Counter()
        elsewhere: deque[Scene] = deque()
        looked = 0.0
        try:
            while waiting or claims or elsewhere:
                while waiting and workers.idle and not self._stopped():
                    self._start(waiting.popleft(), workers, claims, elsewhere, bar)
                if not claims and (not elsewhere or self._stopped()):
                    break
                for outcome in workers.finished():
                    scene, claim, told = claims.pop(outcome.task.output)
                    tries[scene.output] += 1
                    if outcome.status == "died" and tries[scene.output] <= self.options.retries:
                        self.log("again", scene, error=outcome.detail["error"])
                        waiting.append(scene)
                    else:
                        self._settle(scene, outcome, told)
                        bar.advance(1, **{outcome.status: self.counts[outcome.status]})
                    claim.release()
                bar.inside({_short(os.path.relpath(o, self.folder)): s for o, s in workers.shares().items()})
                if elsewhere and time.monotonic() - looked > PATIENCE:
                    looked = time.monotonic()
                    waiting.extend(elsewhere)
                    elsewhere.clear()
                elif not (claims or waiting):
                    time.sleep(0.2)
        finally:
            workers.stop()
            for _, claim, _ in claims.values():
                claim.release()

    def _stopped(self) -> bool:
        return self.options.fail_fast and self.counts["failed"] > 0

    def _start(
        self, scene: Scene, workers: Pool, claims: _Claims, elsewhere: deque[Scene],
        bar: progress.Progress,
    ) -> None:  # fmt: skip
        claim = Claim(self.folder / BOOKS, scene.output)
        if not claim.take():
            elsewhere.append(scene)
            return
        if self.done(scene, self.manifest.latest().get(scene.output)):  # by another batch, since this one looked
            claim.release()
            self.counts["elsewhere"] += 1
            bar.advance(1)
            return
        try:
            told = identity(scene.source, checksum=self.options.checksum)  # before it is read
            task = self._prepared(scene)
        except (HSIDenoiseError, OSError) as error:
            why = str(error) if isinstance(error, HSIDenoiseError) else f"{error.filename}: {error.strerror}"
            self._fail(scene, {"error": " ".join(why.split()), "kind": type(error).__name__}, 0.0)
            claim.release()
            bar.advance(1)
            return
        claims[task.output] = scene, claim, told
        workers.give(task)

    def _prepared(self, scene: Scene) -> Task:
        """The task, its folder made, leftovers of a crash removed and its start recorded."""
        output = self.folder / scene.output
        output.parent.mkdir(parents=True, exist_ok=True)
        real, top = os.path.realpath(output.parent), os.path.realpath(self.folder)
        if os.path.commonpath([real, top]) != top:
            raise UsageError(f"{output}: a link leads out of {self.folder}")
        ours = self.ours(scene)
        # Before its start is recorded: after a crash that record makes whatever lies here the batch's own.
        if os.path.lexists(output) and not (ours or self.options.overwrite):
            raise OutputExistsError(f"{output}: exists and no batch wrote it; move it away or give --overwrite")
        clear_all(output)
        shared = {f.name: getattr(self.options, f.name) for f in dataclasses.fields(DenoiseOptions)}
        report = output.with_name(output.name + ".html") if self.options.reports else None
        changes = {"overwrite": self.options.overwrite or ours, "report": report, "measure": not self.options.quick}
        found = {"result": identity(output, checksum=False).to_dict()} if ours and output.exists() else {}
        self.manifest.add(self._record(scene, "started", found))
        picture = None if self.options.quick else page.thumbnail(self.folder / BOOKS, scene.output)
        return Task(scene.source, str(output), RunOptions(**shared | changes), picture)

    def _record(self, scene: Scene, status: str, detail: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "output": scene.output, "source": os.path.abspath(scene.source), "status": status, "key": self.key,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "host": socket.gethostname(),
            "pid": os.getpid(), **detail,
        }  # fmt: skip

    def _settle(self, scene: Scene, outcome: Outcome, told: Identity) -> None:
        """Record what became of a scene that was such a file."""
        if outcome.status != "done":
            self._fail(scene, outcome.detail, outcome.seconds)
            return
        try:
            result = identity(outcome.task.output, checksum=self.options.checksum)
        except OSError as error:
            self._fail(scene, {"error": f"{outcome.task.output}: went away ({error.strerror})"}, outcome.seconds)
            return
        detail = outcome.detail | {
            "input": told.to_dict(), "result": result.to_dict(),
            "options": self.asked, "weights": dict(self.weights), "version": __version__,
            "elapsed": round(outcome.seconds, 3),
        }  # fmt: skip
        self.manifest.add(self._record(scene, "done", _finite(detail)))
        self.counts["done"] += 1
        for gate in outcome.detail.get("gates_met") or ():
            self.gates.append({"source": scene.source, "gate": gate})
        self.log("done", scene, seconds=round(outcome.seconds, 3))
        self._say(f"{scene.output}: done in {outcome.seconds:.1f} s")

    def _fail(self, scene: Scene, detail: Mapping[str, Any], seconds: float) -> None:
        found: dict[str, Any] = {}
        with contextlib.suppress(OSError):  # it may not be there at all
            found["input"] = identity(scene.source, checksum=False).to_dict()
        self.manifest.add(self._record(scene, "failed", {**found, **detail, "elapsed": round(seconds, 3)}))
        self.counts["failed"] += 1
        self.failures.append({"source": scene.source, "error": str(detail["error"])})
        self.log("failed", scene, error=detail["error"])
        self._say(f"{scene.output}: failed")

    def _say(self, text: str) -> None:
        """A line for each scene, where no bar is shown."""
        if not self.quiet and not sys.stderr.isatty():
            count = self.counts["done"] + self.counts["failed"] + self.counts["elsewhere"]
            print(f"batch: {count} of {self.todo}: {printable(text)}", file=sys.stderr, flush=True)

    def log(self, event: str, scene: Scene, **detail: Any) -> None:
        """Append an event to ``--log-file``."""
        if self.options.log_file is None:
            return
        told = {"time": time.time(), "event": event, "source": scene.source, "output": scene.output, **detail}
        with self.options.log_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")

    def estimate(self, scenes: list[Scene], jobs: int) -> dict[str, Any]:
        """What would be done, and about how long it takes."""
        from ..io import open_cube

        waiting = self.waiting(scenes)
        work: list[float] = []
        memory: list[float] = []
        size, unreadable = 0, []
        for scene in waiting:
            try:
                with open_cube(scene.source, self.options) as cube:
                    bands, rows, cols = cube.shape
                    work.append(LEAST + PACE * rows * cols * min(bands, IMAGES) * self.options.shifts)
                    memory.append(min(EMPTY + rows * cols * (PER_PIXEL + PER_SAMPLE * bands), PER_JOB))
                    size += sum(os.path.getsize(f) for f in cube.layout.get("files", ()) if os.path.isfile(f))
            except (HSIDenoiseError, OSError) as error:
                unreadable.append({"source": scene.source, "error": " ".join(str(error).split())})
        if not self.options.quick:
            work = [MEASURING * seconds + REPORT * self.options.reports for seconds in work]
        jobs = min(jobs, max(len(scenes), 1))
        # Scenes of one process each: no number of cores makes the longest shorter.
        seconds = START + max(sum(work) / min(jobs, cores()), max(work) / max(1, cores() // jobs)) if work else 0.0
        return {
            "folder": str(self.folder), "scenes": len(scenes), "todo": len(waiting), "done": len(scenes) - len(waiting),
            "input_bytes": size, "seconds": round(seconds, 1), "jobs": jobs,
            "memory_bytes": int(sum(heapq.nlargest(jobs, memory))), "unreadable": unreadable,
            "outputs": [{"source": s.source, "output": s.output} for s in waiting],
        }  # fmt: skip


def _short(name: str) -> str:
    """A name that leaves room for its bar on a terminal."""
    shown = printable(name)
    return shown if len(shown) <= 24 else f"{shown[:4]}…{shown[-19:]}"


def _newer(path: Path, than: Path) -> bool:
    """Whether a file was written after another, which is there."""
    try:
        return path.stat().st_mtime_ns >= than.stat().st_mtime_ns
    except OSError:
        return False


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is not known is null."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

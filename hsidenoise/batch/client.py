"""The one process of a batch that hands out scenes, keeps the books and answers for both."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__, progress
from ..errors import HSIDenoiseError, OutputExistsError, UsageError
from ..settings import BatchOptions, DenoiseOptions, RunOptions, to_dict
from . import page
from .leftovers import clear_all
from .manifest import NAME, Claim, Manifest, identity, same
from .scenes import BOOKS, Scene
from .workers import Outcome, Pool, Task, Workers

#: Seconds between looks at scenes that another batch has claimed.
PATIENCE = 5.0
#: Memory that a process is reckoned to take, where jobs are chosen by what is free.
PER_JOB = 3 << 29
#: Core seconds for each sample of a scene, to tell beforehand how long a batch takes.
PACE = 8e-7
#: Options that change nothing in what is written.
_IDLE = ("device", "tile", "overwrite", "fail_on", "config")


#: By output: the scene, its claim, and its file's identity before it was read.
_Claims = dict[str, tuple[Scene, Claim, dict[str, Any]]]


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

    def done(self, scene: Scene) -> bool:
        """Whether the manifest holds this scene, as it is, with these options and weights, and its output is there."""
        record = self.manifest.latest().get(scene.output, {})
        if record.get("status") != "done" or record.get("key") != self.key:
            return False
        try:
            now = identity(scene.source, checksum=self.options.checksum)
            result = identity(self.folder / scene.output, checksum=self.options.checksum)
        except OSError:
            return False
        return same(record["input"], now) and same(record["result"], result)

    def ours(self, scene: Scene) -> bool:
        """Whether the output that is there was written by a batch, or may have been when it was cut off."""
        record = self.manifest.latest().get(scene.output, {})
        if record.get("status") == "started":
            return True
        try:
            return same(record["result"], identity(self.folder / scene.output, checksum=False))
        except (OSError, KeyError, TypeError):
            return False

    def run(self, scenes: list[Scene], jobs: int) -> dict[str, Any]:
        """Denoise what is not done yet."""
        waiting = deque(s for s in scenes if not self.done(s))
        self.counts["skipped"] = len(scenes) - len(waiting)
        self.todo = len(waiting)
        began = time.monotonic()
        if not self.options.scheduler:  # there one scene may take several workers
            jobs = min(jobs, max(len(waiting), 1))
        with (
            self._pool(jobs) as workers,
            progress.track(len(waiting), "batch", quiet=self.quiet or not sys.stderr.isatty(), unit="scene") as bar,
        ):
            self._drive(waiting, workers, bar)
        shown = page.write(self.folder, self.folder / BOOKS, self.manifest.latest())
        return {
            "folder": str(self.folder), "scenes": len(scenes),
            **{k: self.counts[k] for k in ("done", "skipped", "failed", "elsewhere")}, "left": len(waiting),
            "failures": self.failures, "gates_met": self.gates, "report": str(shown),
            "jobs": jobs, "seconds": round(time.monotonic() - began, 2),
        }  # fmt: skip

    def _pool(self, jobs: int) -> Pool:
        if self.options.scheduler:
            from .cluster import Cluster

            large = self.options.split * 2**30 or float("inf")
            return Cluster(self.options.scheduler, jobs, timeout=60 * self.options.timeout, large=large)
        memory = self.options.max_memory * 2**30 or float("inf")
        return Workers(jobs, max(1, cores() // jobs), timeout=60 * self.options.timeout, memory=memory)

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
                bar.inside({os.path.relpath(o, self.folder): share for o, share in workers.shares().items()})
                if elsewhere and time.monotonic() - looked > PATIENCE:
                    looked = time.monotonic()
                    waiting.extend(elsewhere)
                    elsewhere.clear()
                elif not claims:
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
        if self.done(scene):  # by another batch, since this one looked
            claim.release()
            self.counts["elsewhere"] += 1
            bar.advance(1)
            return
        try:
            told = identity(scene.source, checksum=self.options.checksum)  # before it is read
            task = self._prepared(scene)
        except (HSIDenoiseError, OSError) as error:
            self._fail(scene, {"error": " ".join(str(error).split()), "kind": type(error).__name__}, 0.0)
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
        self.manifest.add(self._record(scene, "started", {}))
        picture = None if self.options.quick else page.thumbnail(self.folder / BOOKS, scene.output)
        return Task(scene.source, str(output), RunOptions(**shared | changes), picture)

    def _record(self, scene: Scene, status: str, detail: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "output": scene.output, "source": os.path.abspath(scene.source), "status": status, "key": self.key,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "host": socket.gethostname(),
            "pid": os.getpid(), **detail,
        }  # fmt: skip

    def _settle(self, scene: Scene, outcome: Outcome, told: Mapping[str, Any]) -> None:
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
            "input": dict(told), "result": result,
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
            found["input"] = identity(scene.source, checksum=False)
        self.manifest.add(self._record(scene, "failed", {**found, **detail, "elapsed": round(seconds, 3)}))
        self.counts["failed"] += 1
        self.failures.append({"source": scene.source, "error": str(detail["error"])})
        self.log("failed", scene, error=detail["error"])
        self._say(f"{scene.output}: failed")

    def _say(self, text: str) -> None:
        """A line for each scene, where no bar is shown."""
        if not self.quiet and not sys.stderr.isatty():
            count = self.counts["done"] + self.counts["failed"] + self.counts["elsewhere"]
            print(f"batch: {count} of {self.todo}: {text}", file=sys.stderr, flush=True)

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

        waiting = [s for s in scenes if not self.done(s)]
        samples, size, unreadable = 0, 0, []
        for scene in waiting:
            try:
                with open_cube(scene.source, self.options) as cube:
                    bands, rows, cols = cube.shape
                    samples += bands * rows * cols
                    size += sum(os.path.getsize(f) for f in cube.layout.get("files", ()) if os.path.isfile(f))
            except (HSIDenoiseError, OSError) as error:
                unreadable.append({"source": scene.source, "error": " ".join(str(error).split())})
        return {
            "folder": str(self.folder), "scenes": len(scenes), "todo": len(waiting), "done": len(scenes) - len(waiting),
            "input_bytes": size, "seconds": round(samples * PACE / min(jobs, cores()), 1), "jobs": jobs,
            "memory_bytes": jobs * PER_JOB, "unreadable": unreadable,
            "outputs": [{"source": s.source, "output": s.output} for s in waiting],
        }  # fmt: skip


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is not known is null."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

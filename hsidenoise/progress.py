"""How far along: a bar on a terminal, a line per tenth in a log, nothing when quiet. Only ever on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol


class Progress(Protocol):
    """What `track` gives: something to call when a piece of work is done."""

    def advance(self, n: float = 1, **fields: object) -> None:
        """Count `n` more units as done and show `fields`, such as ``loss=0.01``, beside the rate."""

    def inside(self, shares: Mapping[str, float]) -> None:
        """Show how far units in work have come, by their names: a bar each on a terminal, else nothing."""


#: Who is told the share that is done, where nothing is shown: a process that works for another.
LISTENER: ContextVar[Callable[[float], None] | None] = ContextVar("LISTENER", default=None)


@contextmanager
def track(total: float, label: str, *, quiet: bool = False, unit: str = "it") -> Iterator[Progress]:
    """Show the progress of `total` units of work on stderr.

    Parameters
    ----------
    total
        How many units make the whole; 0 is allowed and shows nothing but the label.
    label
        What is being done, in a word or two.
    quiet
        Show nothing.
    unit
        Name of a unit, for the rate: ``tile``, ``patch``.

    Yields
    ------
    Progress
        A bar with time left where stderr is a terminal; otherwise lines, one for each tenth reached, with elapsed
        and remaining time.
    """
    if quiet:
        yield _Silent(total, LISTENER.get())
    elif sys.stderr.isatty():
        with _bar(total, label, unit) as bar:
            yield bar
    else:
        yield _Lines(total, label, unit)


@dataclass
class _Silent:
    total: float
    listener: Callable[[float], None] | None
    done: float = 0.0

    def advance(self, n: float = 1, **fields: object) -> None:
        self.done += n
        if self.listener is not None and self.total:
            self.listener(self.done / self.total)

    def inside(self, shares: Mapping[str, float]) -> None:
        pass


@dataclass
class _Lines:
    total: float
    label: str
    unit: str
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.done, self.tenth, self.start = 0.0, 0, self.clock()

    def advance(self, n: float = 1, **fields: object) -> None:
        self.done += n
        tenth = int(10 * self.done / self.total + 1e-9) if self.total else 10
        if tenth <= self.tenth:
            return
        self.tenth = tenth
        elapsed = self.clock() - self.start
        left = elapsed * (self.total - self.done) / self.done if self.done else 0.0
        parts = [f"{self.label}: {min(10 * tenth, 100)} % ({self.done:g} of {self.total:g} {self.unit})"]
        parts.append(f"elapsed {_span(elapsed)}" + (f", left {_span(left)}" if left > 0 else ""))
        shown = _shown(fields)
        print(", ".join([*parts, shown] if shown else parts), file=sys.stderr, flush=True)

    def inside(self, shares: Mapping[str, float]) -> None:
        pass


@contextmanager
def _bar(total: float, label: str, unit: str) -> Iterator[Progress]:
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.text import Text

    class Rate(rich_progress.ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if not speed else f"{speed:.3g} {unit}/s" if speed >= 0.1 else f"{1 / speed:.3g} s/{unit}")

    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        Rate(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[shown]}", markup=False),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as shown:
        task = shown.add_task(label, total=total, shown="")

        class Bar:
            def advance(self, n: float = 1, **fields: object) -> None:
                if fields:
                    shown.update(task, shown=_shown(fields))
                shown.advance(task, n)

            def inside(self, shares: Mapping[str, float]) -> None:
                for name in [name for name in parts if name not in shares]:
                    shown.remove_task(parts.pop(name))
                for name, share in shares.items():
                    if name not in parts:
                        parts[name] = shown.add_task(f"  {name}", total=1.0, shown="")
                    shown.update(parts[name], completed=share)

        parts: dict[str, Any] = {}
        yield Bar()


def _shown(fields: dict[str, object]) -> str:
    return " ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in fields.items())


def _span(seconds: float) -> str:
    """``7.3 s``, ``4:05`` or ``2:03:04``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

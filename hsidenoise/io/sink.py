"""What a driver's output is to the writer."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray


class Sink(Protocol):
    """Where pixels go: into temporary files until `finish` names those and their final places, main file last."""

    def open(self) -> None:
        """Create them; before that there is nothing to discard."""

    def write(self, row_start: int, block: NDArray[Any]) -> None:
        """Take the next full-width rows, ``(bands, rows, cols)``."""

    def finish(self) -> list[tuple[str, str]]:
        """Close; returns ``(temporary, final)`` pairs."""

    def discard(self) -> None:
        """Close and remove everything temporary."""

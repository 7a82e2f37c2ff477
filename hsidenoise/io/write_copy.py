"""Output as a copy of the input's file in which only the cube's values are replaced."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ..cube import Cube
from .plan import Plan, temporary
from .slots import Copy


class CopySink:
    """Rows into a temporary copy of the input, made by the reader that knows its format (``layout["copy"]``)."""

    def __init__(self, plan: Plan, like: Cube, provenance: Mapping[str, str]) -> None:
        self._plan, self._like, self._provenance = plan, like, provenance
        self._temporary = temporary(plan.path)
        self._copy: Copy | None = None

    def open(self) -> None:
        """Copy the file."""
        self._copy = self._like.layout["copy"](self._temporary)

    def write(self, row_start: int, block: NDArray[Any]) -> None:
        """Replace rows."""
        assert self._copy is not None
        self._copy.write(row_start, block)

    def finish(self) -> list[tuple[str, str]]:
        """Write the provenance and close."""
        assert self._copy is not None
        copy, self._copy = self._copy, None
        copy.close(self._provenance)
        return [(self._temporary, self._plan.path)]

    def discard(self) -> None:
        """Close, and remove what was not renamed."""
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.close(None)
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._temporary)

"""What all versions of MATLAB files have in common: variables, and what can be done with the file that holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray

from .slots import Copy, Slot

#: NumPy's names of MATLAB's numeric classes.
CLASSES = {"double": "float64", "single": "float32"} | {
    name: name for bits in (8, 16, 32, 64) for name in (f"int{bits}", f"uint{bits}")
}
#: Deeper structs and more variables than these are not looked at: no cube hides there, but damage may pretend so.
DEEPEST, MOST = 8, 20_000


class Variable(NamedTuple):
    """An array of a MATLAB file.

    Parameters
    ----------
    name
        Its name, with a path through structs as MATLAB writes it: ``scene.cube``.
    shape
        As MATLAB says it; files of all versions store the axes the other way round.
    kind
        MATLAB's class (``double``, ``uint16``, ``logical``, ``char``, ``cell`` ...), or ``complex`` or ``sparse``.
    place
        Where it is stored, for the module that found it.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    place: Any = None

    @property
    def dtype(self) -> str:
        """NumPy's name of its numbers; empty where they are none or not real."""
        return CLASSES.get(self.kind, "")

    def __str__(self) -> str:
        return f"{self.name} ({'x'.join(map(str, self.shape))} {self.kind})"


#: An array as it is stored, seen as the one the cube lies in: the same, or a table of pixels as rows and columns.
View = Callable[[Any], Any]


class Target(NamedTuple):
    """What of a variable a cube is.

    Parameters
    ----------
    variable
        It.
    slot
        Where the cube lies in `view` of the stored array.
    view
        See `View`.
    axes
        Axes of bands, rows and columns of the array as it is stored; -1 where there is none.
    """

    variable: Variable
    slot: Slot
    view: View
    axes: tuple[int, int, int]


@dataclass(frozen=True)
class Contents:
    """An open MATLAB file.

    Parameters
    ----------
    version
        ``4``, ``5`` or ``7.3``.
    variables
        All that could be understood, those inside structs after their struct.
    faults
        What could not, one message each.
    values
        All numbers of a variable in MATLAB's order (the first axis fastest), 1-D; for short lists.
    array
        The stored array, read lazily by slices, its axes reversed.
    copy
        Makes a copy of the file under a path, open to take so many rows.
    packed
        Whether a variable is stored compressed.
    """

    version: str
    variables: tuple[Variable, ...]
    values: Callable[[Variable], NDArray[Any]] = field(repr=False)
    array: Callable[[Target], Any] = field(repr=False)
    copy: Callable[[Target, int, str], Copy] = field(repr=False)
    packed: Callable[[Variable], bool] = field(repr=False)
    close: Callable[[], None] = field(repr=False)
    faults: tuple[str, ...] = ()


def printable(name: str) -> str:
    """A name that cannot break the one line of a message."""
    return "".join(c if c.isprintable() else "?" for c in name)

"""Which axis of a stored array is which: as told by --axes and --shape, or as the file's own words make certain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .slots import Slot

_WORDS = {  # names by habit, in lower case without signs
    "b": "b band bands nband nbands bandnumber numberofbands wavelength wavelengths wavelength3d wl lambda channel "
    "channels spectral spectrum",
    "y": "y row rows nrows line lines nlines numberoflines lat latitude northing downtrack alongtrack scan scans ydim "
    "height",
    "x": "x col cols ncols column columns sample samples nsamples pixel pixels pixelsperline lon longitude easting "
    "crosstrack acrosstrack xdim width",
}
LETTER = {word: letter for letter, words in _WORDS.items() for word in words.split()}
_INTERLEAVE = {"bsq": "byx", "bil": "ybx", "bip": "yxb"}


def plain(word: str) -> str:
    """A name without case, blanks and signs."""
    return re.sub(r"[^a-z0-9]", "", word.lower())


def from_labels(labels: Sequence[str]) -> str:
    """Axes from their names where those leave no doubt, else empty: two known ones give the third."""
    letters = [LETTER.get(plain(label), "") for label in labels]
    known = [letter for letter in letters if letter]
    if len(letters) != 3 or len(set(known)) != len(known):
        return ""
    if known == ["b"]:
        return from_band(letters.index("b"))
    if len(known) < 2:
        return ""
    return "".join(letter or next(iter(set("byx") - set(known))) for letter in letters)


def from_band(axis: int) -> str:
    """Axes of a cube whose band axis is known: rows come before columns."""
    rest = ["y", "x"]
    return "".join("b" if i == axis else rest.pop(0) for i in range(3))


def from_lengths(shape: Sequence[int], lengths: Sequence[int]) -> str:
    """Axes of a cube that comes with a list of so many wavelengths; empty where two axes are as long."""
    axes = {i for i, size in enumerate(shape) for n in lengths if size == n}
    return from_band(axes.pop()) if len(axes) == 1 and len(shape) == 3 else ""


def from_interleave(text: str) -> str:
    """Axes of ``BSQ``, ``BIL`` or ``BIP``, else empty."""
    return _INTERLEAVE.get(plain(text), "")


def parse_shape(text: str) -> tuple[int, int]:
    """Rows and columns of ``--shape``.

    Raises
    ------
    UsageError
        Not of the form 100x200.
    """
    found = re.fullmatch(r"\s*(\d+)\s*[xX×,]\s*(\d+)\s*", text)
    if not found or not int(found[1]) * int(found[2]):
        raise UsageError(f"--shape {text}: give rows and columns as in 100x200")
    return int(found[1]), int(found[2])


def slot(name: str, path: str, shape: Sequence[int], axes: str) -> Slot:
    """The slot of an array, its axes named by letters; digits are places on axes that are no part of the cube.

    Raises
    ------
    UsageError
        The letters do not fit the array.
    """
    text = axes.lower()
    if len(text) != len(shape):
        raise UsageError(f"{name}: --axes {axes}: {path} has {len(shape)} axes, name each of them by one character")
    if any(text.count(letter) != 1 for letter in "yx") or text.count("b") > 1 or not re.fullmatch(r"[byx0-9]+", text):
        raise UsageError(f"{name}: --axes {axes}: name y and x once, b at most once, and other axes by a digit")
    fixed = tuple((i, int(c)) for i, c in enumerate(text) if c.isdigit())
    for axis, place in fixed:
        if place >= shape[axis]:
            raise UsageError(f"{name}: --axes {axes}: axis {axis + 1} of {path} has {shape[axis]} places, from 0 up")
    band = text.find("b")
    return Slot(path, (band, text.index("y"), text.index("x")), shape[band] if band >= 0 else 1, fixed)


class Folded:
    """A 2-D array whose one axis holds all pixels, seen as a cube.

    Parameters
    ----------
    array
        What is stored.
    axis
        The one of its axes that holds the pixels.
    sizes
        Rows and columns, or columns and rows where a column's pixels are neighbours.
    """

    def __init__(self, array: Any, axis: int, sizes: tuple[int, int]) -> None:
        self._array, self._axis, self._sizes = array, axis, sizes
        self.shape = (*array.shape[:axis], *sizes, *array.shape[axis + 1 :])

    def _key(self, key: tuple[Any, ...], outer: slice) -> tuple[Any, ...]:
        inner = self._sizes[1]
        return (*key[: self._axis], slice(outer.start * inner, outer.stop * inner), *key[self._axis + 2 :])

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        outer, within = key[self._axis], key[self._axis + 1]
        part = np.asarray(self._array[self._key(key, outer)])
        shape = (*part.shape[: self._axis], -1, self._sizes[1], *part.shape[self._axis + 1 :])
        return part.reshape(shape)[(slice(None),) * (self._axis + 1) + (within,)]

    def __setitem__(self, key: tuple[Any, ...], values: NDArray[Any]) -> None:
        outer, within = key[self._axis], key[self._axis + 1]
        for i, place in enumerate(range(outer.start, outer.stop)):
            start = place * self._sizes[1]
            pixels = slice(start + within.start, start + within.stop)
            at = (*key[: self._axis], pixels, *key[self._axis + 2 :])
            self._array[at] = values[(slice(None),) * self._axis + (i,)]


def fold(name: str, path: str, shape: Sequence[int], axes: str, size: tuple[int, int]) -> tuple[str, int]:
    """Axes of the cube that `Folded` makes of a 2-D array, and which of the array's axes holds the pixels.

    Raises
    ------
    UsageError
        No axis has as many places as there are pixels, or the letters do not fit.
    """
    count = size[0] * size[1]
    if len(shape) != 2 or count not in shape:
        said = " x ".join(map(str, shape))
        raise UsageError(f"{name}: --shape {size[0]}x{size[1]}: {path} is {said}, no table with {count} pixels")
    if not axes:
        if shape[0] == shape[1]:
            raise UsageError(f"{name}: {path} has as many bands as pixels; give --axes byx or yxb as well")
        return ("yxb", 0) if shape[0] == count else ("byx", 1)
    axis = {"byx": 1, "bxy": 1, "yxb": 0, "xyb": 0}.get(axes.lower(), -1)
    if axis < 0 or shape[axis] != count:
        raise UsageError(f"{name}: --axes {axes}: with --shape choose byx, bxy, yxb or xyb, as {path} is stored")
    return axes.lower(), axis

"""MATLAB files: the one array that is the cube, the variables that describe its bands, and copies with other pixels."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cube import Cube, Geo, Window
from ..errors import MetadataWarning, SceneTooLargeError
from ..settings import ReadOptions
from . import hdf_axes, mat5, mat_plain, slots
from .mat_choose import bands_of, choose
from .mat_file import Contents, Target, Variable

_CREDIBLE, _RATIO = 2**30, 50_000
_DEFAULT = "yxb"


def open_mat(name: str, options: ReadOptions) -> Cube:
    """Open a MATLAB file of version 4, 5 (to 7) or 7.3.

    Raises
    ------
    ReadError
        Cut short or damaged.
    UnsupportedError
        No array in it can be the cube, or several can.
    SceneTooLargeError
        The array is far larger than the file could hold.
    UsageError
        An option does not fit the file.
    """
    contents = _contents(name)
    try:
        return _describe(name, contents, options)
    except BaseException:
        contents.close()
        raise


def _contents(name: str) -> Contents:
    with open(name, "rb") as file:
        head = file.read(mat5.HEADER)
    if head.startswith(b"MATLAB 7.3") or head[124:126] == b"\0\2":
        from . import mat73

        return mat73.open_contents(name)
    return mat_plain.open_contents(name, "5" if head.startswith(b"MATLAB") or mat5.order_of(head) else "4")


def _describe(name: str, contents: Contents, options: ReadOptions) -> Cube:
    variable = choose(name, contents, options)
    for fault in contents.faults:
        warnings.warn(f"{fault}; the other variables are read", MetadataWarning, stacklevel=4)
    target, shape = _target(name, variable, options)
    size = math.prod(variable.shape) * np.dtype(variable.dtype).itemsize
    on_disk = os.path.getsize(name)
    if size > _CREDIBLE and size > _RATIO * on_disk and not options.allow_large:
        raise SceneTooLargeError(
            f"{name}: {variable} takes {size / 2**30:.1f} GiB, in a file of {on_disk} bytes; more than {_RATIO} times "
            "its size is hardly credible; --allow-large opens it all the same"
        )
    contents.array(target)  # what is wrong with it should be known now
    blank = (None,) * shape[0]
    return Cube(
        name=name,
        format=f"MATLAB {contents.version}",
        shape=shape,
        dtype=variable.dtype,
        bands=bands_of(name, variable, contents, shape, options),
        geo=Geo(),
        nodata=blank,
        scale=(1.0,) * shape[0],
        offset=(0.0,) * shape[0],
        read_raw=_reader(contents, target),
        band_tags=({},) * shape[0],
        layout={
            "driver": "MATLAB",
            "files": (name,),
            "variable": variable.name,
            "compress": "DEFLATE" if contents.packed(variable) else "",
            "copy": lambda path: contents.copy(target, shape[1], path),
            "suffixes": (".mat",),
        },
        on_close=contents.close,
    )


def _target(name: str, variable: Variable, options: ReadOptions) -> tuple[Target, tuple[int, int, int]]:
    """Where bands, rows and columns are, and how many."""
    sizes, axes, fold = variable.shape, options.axes or _DEFAULT, None
    last = len(sizes) - 1
    if options.shape:
        rows, cols = hdf_axes.parse_shape(options.shape)
        axes, axis = hdf_axes.fold(name, variable.name, sizes, options.axes, (rows, cols))
        # MATLAB's reshape: the first of two axes runs fastest, and is stored last.
        pair = (rows, cols) if axes.index("y") < axes.index("x") else (cols, rows)
        sizes = (*sizes[:axis], *pair, *sizes[axis + 1 :])
        fold = (last - axis, pair[::-1])
        stored = (axis, last - axis, -1)
    slot = hdf_axes.slot(name, variable.name, sizes, axes)
    top = len(sizes) - 1
    shape = (slot.bands, sizes[slot.axes[1]], sizes[slot.axes[2]])
    bands, y, x = (top - axis if axis >= 0 else -1 for axis in slot.axes)
    slot = slot._replace(axes=(bands, y, x), fixed=tuple((top - axis, at) for axis, at in slot.fixed))
    if fold is None:
        return Target(variable, slot, lambda array: array, slot.axes), shape
    at, pair = fold
    return Target(variable, slot, lambda array: hdf_axes.Folded(array, at, pair), stored), shape


def _reader(contents: Contents, target: Target) -> Callable[[Window, Sequence[int]], NDArray[Any]]:
    dtype = target.variable.dtype

    def read_raw(window: Window, bands: Sequence[int]) -> NDArray[Any]:
        array = target.view(contents.array(target))
        part = slots.read(lambda _: array, [target.slot], window, bands)
        with np.errstate(over="ignore", invalid="ignore"):
            # Doubles are often stored as the integers they happen to be.
            return part.astype(dtype, copy=False)

    return read_raw

"""MATLAB 7.3 files: HDF5 with MATLAB's classes as attributes and all axes reversed."""

from __future__ import annotations

from functools import cache
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import HSIDenoiseError
from . import hdf_copy, hdf_file
from .mat_file import CLASSES, DEEPEST, MOST, Contents, Target, Variable, printable
from .slots import Arrays, Copy

_OF_DTYPE = {dtype: kind for kind, dtype in CLASSES.items()}


def open_contents(name: str) -> Contents:
    """Open a MATLAB 7.3 file.

    Raises
    ------
    ReadError
        Cut short or damaged as a whole.
    """
    file = hdf_file.open_file(name)
    found: list[Variable] = []
    faults: list[str] = []
    try:
        with hdf_file.reading(name):
            _walk(name, file, "", 0, found, faults)
    except BaseException:
        file.close()
        raise

    def values(variable: Variable) -> NDArray[Any]:
        with hdf_file.reading(name):
            return np.asarray(file[variable.place][()]).ravel()

    def copy(target: Target, rows: int, path: str) -> Copy:
        def prepare(out: h5py.File) -> Arrays:
            array = target.view(hdf_file.dataset(out, target.variable.place, target.axes))
            return lambda _: array

        return hdf_copy.copy(hdf_copy.Source(name, (target.slot,), rows, prepare), path)

    def packed(variable: Variable) -> bool:
        return bool(file[variable.place].id.get_create_plist().get_nfilters())

    @cache  # opened once, because its chunk cache goes when it is closed
    def array(target: Target) -> _Array:
        with hdf_file.reading(name):
            hdf_file.check(name, file, target.variable.place)
            return _Array(name, hdf_file.dataset(file, target.variable.place, target.axes))

    return Contents("7.3", tuple(found), values, array, copy, packed, file.close, tuple(faults))


def _walk(name: str, group: h5py.Group, path: str, depth: int, found: list[Variable], faults: list[str]) -> None:
    for key in group:
        if len(found) + len(faults) >= MOST or key.startswith("#"):  # '#refs#' and '#subsystem#' are MATLAB's own
            continue
        own = f"{path}.{printable(key)}" if path else printable(key)
        try:
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                continue
            item = group[key]
            variable = _variable(own, item)
            found.append(variable)
            if variable.kind == "struct" and isinstance(item, h5py.Group) and depth < DEEPEST:
                _walk(name, item, own, depth + 1, found, faults)
        except HSIDenoiseError:
            raise
        except hdf_file.FAULTS as error:
            faults.append(
                f"{name}: damaged: {own} cannot be read ({' '.join(str(error).split())[:200]}); fetch it again"
            )


def _variable(own: str, item: Any) -> Variable:
    said = item.attrs.get("MATLAB_class", b"")
    kind = printable(said.decode("latin-1") if isinstance(said, bytes) else str(said))
    if not isinstance(item, h5py.Dataset):
        return Variable(own, (1, 1), "sparse" if "MATLAB_sparse" in item.attrs else kind or "struct", item.name)
    shape = tuple(int(n) for n in (item.shape or ()))[::-1]
    if "MATLAB_empty" in item.attrs or not shape:
        return Variable(own, (0, 0), kind or "array", item.name)
    dtype = item.dtype
    if dtype.names or dtype.kind == "c":
        kind = "complex"
    elif dtype.kind not in "iuf" or dtype.name not in _OF_DTYPE:
        kind = "logical" if dtype.kind == "b" else kind if kind not in CLASSES else dtype.name
        kind = kind or dtype.name
    elif kind in CLASSES or not kind:
        kind = _OF_DTYPE[dtype.name]
    if item.external or item.is_virtual:
        kind = "array in other files"
    return Variable(own, shape, kind, item.name)


class _Array:
    """A dataset whose failures are said in one line."""

    def __init__(self, name: str, dataset: h5py.Dataset) -> None:
        self._name, self._dataset = name, dataset
        self.shape: tuple[int, ...] = dataset.shape

    def __getitem__(self, key: Any) -> NDArray[Any]:
        with hdf_file.reading(self._name, "damaged, its pixels cannot be read"):
            return np.asarray(self._dataset[key])

"""Arrays of HDF5 files that are no known product: which one is the scene, its axes and its wavelengths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

import h5py
import numpy as np

from ..errors import UnsupportedError, UsageError
from ..settings import ReadOptions
from . import hdf_axes
from .hdf_file import FAULTS, Array, numbers, text, warn
from .products import Part, cf_values

_WAVELENGTHS = {"wavelength", "wavelengths", "wavelengthnm", "wavelengthsnm", "wl", "wvl", "lambda", "bandcenters",
                "centerwavelength", "centerwavelengths", "centralwavelength", "centralwavelengths"}  # fmt: skip
_WIDTHS = {"fwhm", "fwhms", "fwhmnm"}
_GOOD = {"goodwavelengths", "goodbands", "bbl"}
_LISTED = 8


def meant(stored: Sequence[Array], variable: str) -> list[Array]:
    """The arrays that ``--variable`` can mean: the one at this path, else those whose path ends so."""
    wanted = variable.strip("/")
    ends = [a for a in stored if wanted and f"/{a.path}".endswith(f"/{wanted}")]
    return [a for a in ends if a.path == wanted] or ends


def _named(name: str, stored: Sequence[Array], variable: str) -> Array:
    found = meant(stored, variable)
    if len(found) > 1:
        raise UsageError(f"{name}: --variable {variable} could be any of {_listed(found)}; give more of its path")
    if not found:
        raise UsageError(f"{name}: --variable {variable}: no such array; there are {_listed(stored) or 'none'}")
    if found[0].flaw:
        raise UnsupportedError(f"{name}: {found[0].path} holds {found[0].flaw}")
    return found[0]


def _listed(found: Sequence[Array]) -> str:
    return ", ".join(map(str, found[:_LISTED])) + (f" and {len(found) - _LISTED} more" if len(found) > _LISTED else "")


def scene(name: str, file: h5py.File, stored: Sequence[Array], options: ReadOptions) -> Part:
    """The scene of a file that is no product: the array that ``--variable`` names, or the one that can be it.

    Raises
    ------
    UsageError
        No array or several have that name; without one, several could be the scene; or its axes are not certain.
    UnsupportedError
        None could be, or the one that is meant holds no measurements.
    """
    array = _named(name, stored, options.variable) if options.variable else _only(name, stored, options)
    lists = _lists(file, stored, array)
    wavelength, unit = next(((v, u) for key, v, u in lists if key in _WAVELENGTHS), ([], ""))
    axes = options.axes
    if not axes and not options.shape:
        lengths = [len(v) for key, v, _ in lists if key in _WAVELENGTHS]
        axes = "yx" if len(array.shape) == 2 else _guess(file, array, lengths)
        if not axes:
            raise UsageError(
                f"{name}: which axis of {array} is which is not said; give --axes, such as byx (bands, rows, columns), "
                "ybx or yxb, with a digit for each further axis"
            )
    fwhm, width_unit = next(((v, u) for key, v, u in lists if key in _WIDTHS), ([], ""))
    if width_unit.lower() != unit.lower() and width_unit and fwhm:
        warn(name, f"widths in {width_unit} for wavelengths in {unit or 'an unknown unit'} are left out")
        fwhm = []
    good = next((v for key, v, _ in lists if key in _GOOD), [])
    return Part(array.path, axes, wavelength, unit, fwhm, good, cf_values(file, file[array.path]))


def _only(name: str, stored: Sequence[Array], options: ReadOptions) -> Array:
    """The one array that can be the scene: of three axes, else of two."""
    able = [a for a in stored if not a.flaw and 0 not in a.shape]
    dimensions = (2,) if options.shape else (3, 2)
    for count in (*dimensions, 4):
        found = [a for a in able if len(a.shape) == count]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"{name}: holds several arrays: {_listed(found)}; choose one with --variable")
    flawed = [a for a in stored if a.flaw and len(a.shape) > 1]
    why = f"; {flawed[0].path} holds {flawed[0].flaw}" if flawed else ""
    raise UnsupportedError(f"{name}: an HDF5 file without an array of numbers that could be a scene{why}")


def _guess(file: h5py.File, array: Array, lengths: Sequence[int]) -> str:
    """Axes of a 3-D array from whatever the file says, where all of it agrees; else empty."""
    if len(array.shape) != 3:
        return ""
    item = file[array.path]
    said = [hdf_axes.from_labels(labels) for labels in _labels(file, item)]
    said += [hdf_axes.from_interleave(text(item.attrs[k])) for k in item.attrs if k.lower() == "interleave"]
    # Cubes for training: row, column, band, with one flag a band.
    if np.size(item.attrs.get("clean_bands", ())) == array.shape[2]:
        said.append("yxb")
    certain = {axes for axes in said if axes}
    return certain.pop() if len(certain) == 1 else "" if certain else hdf_axes.from_lengths(array.shape, lengths)


def _labels(file: h5py.File, item: h5py.Dataset) -> list[list[str]]:
    """Names of an array's axes in each convention: labels and scales, an ``axes`` attribute, HDF-EOS metadata."""
    dims = [item.dims[i] for i in range(item.ndim)]
    names = [[d.label for d in dims]]
    with suppress(*FAULTS):  # references to scales that are gone
        names.append([str(d[0].name or "").rpartition("/")[2] if len(d) else "" for d in dims])
    if isinstance(item.attrs.get("axes"), str | bytes):
        names.append([w for w in re.split(r"[\s,;:/]+", text(item.attrs["axes"])) if w])
    meta = file.get("HDFEOS INFORMATION/StructMetadata.0")
    if isinstance(meta, h5py.Dataset):
        field = re.escape(str(item.name).rpartition("/")[2])
        found = re.search(rf'DataFieldName="{field}"[^(]*?DimList=\(([^)]*)\)', text(meta[()]), re.DOTALL)
        names.append(re.findall(r'"([^"]+)"', found[1]) if found else [])
    return names


def _lists(file: h5py.File, stored: Sequence[Array], array: Array) -> list[tuple[str, list[str], str]]:
    """Spectral lists of an array: its attributes, then arrays of one axis, those of its own group first."""
    attributes = file[array.path].attrs
    found = []
    for key in attributes:
        word, size = hdf_axes.plain(key), np.size(attributes[key])
        if word in _WAVELENGTHS | _WIDTHS | _GOOD and size > 1 and size in array.shape:
            unit = next((text(attributes[u]) for u in attributes if u.lower() == f"{key.lower()}_units"), "")
            found.append((word, numbers(attributes[key]), unit or ("nm" if word.endswith("nm") else "")))
    group = array.path.rpartition("/")[0]
    for other in sorted(stored, key=lambda a: a.path.rpartition("/")[0] != group):
        word = hdf_axes.plain(other.path.rpartition("/")[2])
        fits = len(other.shape) == 1 and other.shape[0] in array.shape and not other.flaw
        if fits and word in _WAVELENGTHS | _WIDTHS | _GOOD:
            item = file[other.path]
            unit = next((text(item.attrs[u]) for u in item.attrs if u.lower() in ("units", "unit")), "")
            found.append((word, numbers(item[()]), unit or ("nm" if word.endswith("nm") else "")))
    return found

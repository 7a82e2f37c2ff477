"""Which variable of a MATLAB file is the cube, and which ones describe its bands."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bands import Bands, from_envi
from ..errors import MetadataWarning, ReadError, UnsupportedError, UsageError
from ..settings import ReadOptions
from . import hdf_axes
from .mat_file import Contents, Variable, printable

_LISTED = 8
_LONGEST_UNIT = 32  # letters
_NOT = {
    "complex": "complex, which is not supported; denoise magnitudes",
    "logical": "logical: a mask or labels, no measurements",
    "char": "text, no measurements",
    "sparse": "sparse, which is not supported; save it with full()",
    "struct": "a struct; name an array in it",
    "cell": "a cell array, which is not supported; save the array in it as a variable",
}
# Names by habit, without case and signs; the more telling ones come first.
_WAVELENGTHS = (
    "wavelength", "wavelengths", "centerwavelength", "centerwavelengths", "centrewavelengths", "centralwavelength",
    "centralwavelengths", "bandcenters", "bandcentres", "centers", "centres", "lambda", "lambdas", "wl", "wls", "wvl",
    "wvls", "wave", "waves", "wavelen", "wlen", "wv", "lam", "bandsnm", "bandsum",
)  # fmt: skip
_WIDTHS = ("fwhm", "fwhms", "bandwidth", "bandwidths")
_FLAGS = ("bbl", "goodbands", "goodwavelengths")
_UNIT = re.compile(r"_?(nm|um|nanometers?|micrometers?|microns?)$", re.IGNORECASE)


def choose(name: str, contents: Contents, options: ReadOptions) -> Variable:
    """The variable that holds the cube.

    Raises
    ------
    UsageError
        ``--variable`` names none; or without it, several can be the cube.
    UnsupportedError
        It cannot be a cube; or without it, none can.
    ReadError
        Nothing can be, and something in the file is damaged.
    """
    if options.variable:
        return _shaped(name, _named(name, contents, options.variable), options)
    numeric = [v for v in contents.variables if v.dtype and min(v.shape) > 0]
    if options.shape:
        rows, cols = hdf_axes.parse_shape(options.shape)
        fitting = [v for v in numeric if len(v.shape) == 2 and rows * cols in v.shape and min(v.shape) > 1]
    else:
        axes = len(options.axes) or 3
        fitting = [v for v in numeric if len(v.shape) == axes and (axes > 2 or min(v.shape) > 1)]
    fitting = [v for v in fitting if "." not in v.name] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(
            f"{name}: {len(fitting)} arrays could be the cube: {_list(fitting)}; choose one by --variable NAME"
        )
    if contents.faults:
        raise ReadError(contents.faults[0])
    raise UnsupportedError(f"{name}: {_why(contents, numeric, options)}")


def _named(name: str, contents: Contents, wanted: str) -> Variable:
    path = wanted.strip("/").replace("/", ".")
    for variable in contents.variables:
        if variable.name == path:
            if not variable.dtype:
                what = _NOT.get(variable.kind, f"of MATLAB's class {variable.kind}, which holds no measurements")
                raise UnsupportedError(f"{name}: {variable.name} is {what}")
            if min(variable.shape) == 0:
                raise UnsupportedError(f"{name}: {variable} is empty")
            return variable
    if contents.faults:
        raise ReadError(contents.faults[0])
    raise UsageError(f"{name}: --variable {wanted}: is not in the file; there are {_list(contents.variables)}")


def _shaped(name: str, variable: Variable, options: ReadOptions) -> Variable:
    if not options.shape and not options.axes and len(variable.shape) != 3:
        raise UnsupportedError(f"{name}: {_remedy(variable)}")
    return variable


def _remedy(variable: Variable) -> str:
    if len(variable.shape) == 2:
        return f"{variable} is a table; if it is bands and pixels give --shape ROWSxCOLS, if it is one band --axes yx"
    return f"{variable} has {len(variable.shape)} axes; give --axes, such as yxb{'0' * (len(variable.shape) - 3)}"


def _why(contents: Contents, numeric: Sequence[Variable], options: ReadOptions) -> str:
    if not contents.variables:
        return "a MATLAB file without variables"
    if options.shape or options.axes:
        said = f"--shape {options.shape}" if options.shape else f"--axes {options.axes}"
        return f"no array fits {said}; there are {_list(contents.variables)}"
    likely = [v for v in numeric if len(v.shape) > 3] or [v for v in numeric if len(v.shape) == 2 and min(v.shape) > 1]
    if len(likely) == 1:
        return f"holds no 3-D array; {_remedy(likely[0])}"
    if likely:
        return f"holds no 3-D array; name one of {_list(likely)} by --variable, with --shape ROWSxCOLS or --axes"
    return f"holds no cube (a 3-D array of real numbers), only {_list(contents.variables)}"


def _list(variables: Sequence[Variable]) -> str:
    more = f" and {len(variables) - _LISTED} more" if len(variables) > _LISTED else ""
    return ", ".join(map(str, variables[:_LISTED])) + more if variables else "no variables"


def bands_of(name: str, cube: Variable, contents: Contents, shape: tuple[int, int, int], options: ReadOptions) -> Bands:
    """Wavelengths, widths and flags from the variables that are named so by habit and have one number a band."""
    count = shape[0]
    keys: dict[str, str] = {}
    for key, habits in (("wavelength", _WAVELENGTHS), ("fwhm", _WIDTHS), ("bbl", _FLAGS)):
        found = _by_habit(cube, contents, habits)
        fitting = [v for v in found if math.prod(v.shape) == count]
        if fitting:
            # Text with the digits of their own type: a single 0.4268 is no 0.42680001258850098.
            keys[key] = "{" + ",".join(_text(v) for v in contents.values(fitting[0])) + "}"
            if key == "wavelength":
                keys["wavelength units"] = _unit(fitting[0], contents)
        elif found and key == "wavelength" and math.prod(found[0].shape) > 1:  # a lone lambda is some parameter
            _warn_misfit(name, found[0], shape, options)
    return from_envi(keys, count, name)


def _unit(wavelengths: Variable, contents: Contents) -> str:
    """The unit at the end of the name, else what a text named so beside it says, else nothing."""
    if found := _UNIT.search(wavelengths.name):
        return found[1]
    struct, _, own = wavelengths.name.rpartition(".")
    habits = [hdf_axes.plain(own + end) for end in ("_units", "_unit")] + ["wavelengthunits", "wavelengthunit", "units"]
    for variable in contents.variables:
        inside, _, name = variable.name.rpartition(".")
        said = variable.kind == "char" and variable.place and 0 < math.prod(variable.shape) <= _LONGEST_UNIT
        if said and inside == struct and hdf_axes.plain(name) in habits:
            return _letters(contents.values(variable))
    return ""


def _letters(codes: NDArray[Any]) -> str:
    if codes.dtype.itemsize == 1:
        return printable(codes.tobytes().decode("utf-8", "replace")).strip()
    return printable("".join(chr(int(code)) for code in codes if 0 < code < 0x10000)).strip()


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, np.bool_) else str(value)


def _by_habit(cube: Variable, contents: Contents, habits: Sequence[str]) -> list[Variable]:
    """Vectors of these names: those beside the cube come first, then those outside of structs."""
    struct = cube.name.rpartition(".")[0]
    ranked = []
    for variable in contents.variables:
        inside, _, own = variable.name.rpartition(".")
        plain = hdf_axes.plain(own)
        short = hdf_axes.plain(_UNIT.sub("", own))
        at = next((habits.index(word) for word in (plain, short) if word in habits), -1)
        numbers = variable.dtype or variable.kind == "logical"
        if at >= 0 and numbers and variable.shape and math.prod(variable.shape) == max(variable.shape) > 0:
            ranked.append((inside != struct, inside.count(".") + bool(inside), at, variable))
    return [variable for *_, variable in sorted(ranked, key=lambda r: r[:3])]


def _warn_misfit(name: str, found: Variable, shape: tuple[int, int, int], options: ReadOptions) -> None:
    count = math.prod(found.shape)
    hint = ""
    if count in shape[1:] and not options.axes and not options.shape:
        hint = "; if the bands lie along another axis say so, as in --axes byx"
    text = f"{name}: {count} numbers in {found.name} for {shape[0]} bands; not used{hint}"
    warnings.warn(text, MetadataWarning, stacklevel=5)

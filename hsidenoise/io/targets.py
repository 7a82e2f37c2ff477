"""Where an output goes: which driver its name asks for, which files it occupies, and whether it may be written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from ..cube import Cube
from ..errors import OutputExistsError, ReadError, UsageError
from . import sniff

_DRIVERS = {name.lower(): name for name in ("GTiff", "COG", "ENVI", "netCDF", "copy")}
_SUFFIXES = {".tif": "GTiff", ".tiff": "GTiff", ".nc": "netCDF"}
_SUFFIXES |= dict.fromkeys((".img", ".dat", ".bsq", ".bil", ".bip", ".raw", ".hdr"), "ENVI")
# Of files that can only be written as copies of an input of their kind.
_COPIES = (".mat", ".h5", ".hdf5", ".he5", ".hdf", ".he4", ".l1r", ".nc4", ".cdf")
# Files that readers take for part of an image of this name, so that a stale one would corrupt a new image.
_SIDECARS = (".aux.xml", ".ovr", ".msk")


def header_path(path: str) -> str:
    """The ENVI header of a data file: ``x.hdr`` for the usual suffixes, else the whole name and ``.hdr``."""
    stem, suffix = os.path.splitext(path)
    return (stem if suffix.lower() in _SUFFIXES else path) + ".hdr"


def output_driver(path: str | os.PathLike[str], of: str, like: Cube) -> str:
    """``GTiff``, ``COG``, ``ENVI``, ``netCDF`` or ``copy``: what was asked for, else by suffix, else as the input.

    A ``copy`` is the input's file with other pixels, for formats that hold more than a scene. An input that can be
    copied says so by ``layout["copy"]``, and by ``layout["suffixes"]`` which suffixes ask for that.

    Raises
    ------
    UsageError
        Neither says one of these, or the input cannot be copied.
    """
    text = os.fspath(path)
    suffix = os.path.splitext(text)[1].lower()
    if "copy" in like.layout and not of and (not suffix or suffix in like.layout["suffixes"]):
        return "copy"
    driver = _driver(text, of, like.layout.get("driver", ""))
    if driver == "copy" and ("copy" not in like.layout or (suffix not in like.layout["suffixes"] and not of)):
        raise UsageError(
            f"{text}: only an input of that format can be written like this, and {like.name} is {like.format}; "
            "use .tif (GeoTIFF), .img (ENVI) or .nc (netCDF)"
        )
    return driver


def plain_driver(path: str | os.PathLike[str]) -> str:
    """The driver a suffix asks for where a copy cannot be made as wanted; empty if it means copies only."""
    return _SUFFIXES.get(os.path.splitext(os.fspath(path))[1].lower(), "")


def _driver(path: str, of: str, default: str) -> str:
    if of:
        if of.lower() not in _DRIVERS:
            raise UsageError(f"--of {of}: can write {', '.join(_DRIVERS.values())}")
        return _DRIVERS[of.lower()]
    suffix = os.path.splitext(path)[1].lower()
    if not suffix:
        return default if default in ("GTiff", "ENVI") else "GTiff"
    if suffix in _COPIES:
        return "copy"
    if suffix not in _SUFFIXES:
        raise UsageError(
            f"{path}: no format is known for {suffix}; use .tif (GeoTIFF), .img, .dat, .bsq, .bil, .bip, .raw "
            "or .hdr (ENVI), .nc (netCDF), or say --of GTiff, COG, ENVI or netCDF"
        )
    return _SUFFIXES[suffix]


def occupied(path: str, driver: str) -> tuple[str, ...]:
    """Every path the output occupies or whose leftovers would be taken for part of it."""
    heads = dict.fromkeys((header_path(path), path + ".hdr"))  # the longer name wins with readers
    return (path, *(heads if driver == "ENVI" else ()), *(path + s for s in _SIDECARS))


def data_path(path: str, driver: str) -> str:
    """An ENVI output named by its header gets the data file beside it."""
    return path[:-4] + ".img" if driver == "ENVI" and path.lower().endswith(".hdr") else path


def _input_files(name: str) -> list[str]:
    """All local files that make up an input, as far as they can be told without opening it."""
    from . import envi
    from .header import is_header

    try:
        if os.path.isdir(name):
            return [entry.path for entry in os.scandir(name) if entry.is_file()]
        if not os.path.isfile(name):
            return []
        with open(name, "rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise ReadError(f"{name}: cannot be opened ({error.strerror})") from error
    files = [name]
    if is_header(start):
        with contextlib.suppress(OSError):  # without its data it is no input anyone could lose
            files.append(envi.data_of(name))
    found = envi.header_of(name)
    return [*files, *([found] if found else [])]


def check_output(
    path: str | os.PathLike[str], *, inputs: Sequence[str | os.PathLike[str]], overwrite: bool, of: str = ""
) -> None:
    """Refuse, before anything is read, an output that must not or cannot be written.

    Parameters
    ----------
    path
        The output.
    inputs
        Every file of this run that is read; none may be replaced, whatever `overwrite` says.
    overwrite
        Whether other existing files may be replaced.
    of
        The driver asked for, if any.

    Raises
    ------
    OutputExistsError
        The output (or its header or sidecar) exists, or is one of the inputs, be it through a link.
    UsageError
        The folder is missing, cannot be written or is itself an input; or the name says no known format.
    """
    text = os.fspath(path)
    if sniff.is_gdal_name(text):
        raise UsageError(f"{text}: outputs are local files; write it here and copy it there")
    if not sniff.is_utf8(text):
        raise UsageError(f"{sniff.shown(text)}: the name is not UTF-8, which GDAL and HDF5 cannot write; rename it")
    if os.path.isdir(text):
        raise UsageError(f"{text}: is a directory; name a file in it")
    folder = os.path.dirname(text) or "."
    if not os.path.isdir(folder):
        raise UsageError(f"{text}: the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{text}: the folder {folder} cannot be written; choose another")
    for name in inputs:
        if os.path.isdir(name) and os.path.samefile(name, folder):
            raise UsageError(f"{text}: lies in the input folder, where it would be taken for a band; choose another")
    driver = _driver(text, of, "ENVI")  # without a suffix it may become ENVI, so guard its header too
    targets = [t for t in (text, *occupied(data_path(text, driver), driver)) if os.path.lexists(t)]
    for source in (f for name in inputs for f in _input_files(os.fspath(name))):
        for target in targets:
            if os.path.exists(target) and os.path.samefile(source, target):
                raise OutputExistsError(f"{text}: would replace the input {source}; choose another name")
    if targets and not overwrite:
        raise OutputExistsError(f"{targets[0]}: exists; choose another name or give --overwrite")

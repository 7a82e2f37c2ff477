"""Scenes in and out of files. Opening sniffs by content; nothing is ever written beside an input."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..cube import Cube
from ..errors import HSIDenoiseError, ReadError, UnsupportedError, UsageError
from ..settings import ReadOptions, with_changes

if TYPE_CHECKING:
    from .targets import check_output, output_driver
    from .write import CubeWriter, create_cube, describe_output

__all__ = ["CubeWriter", "check_output", "create_cube", "describe_output", "gdal_env", "open_cube", "output_driver"]

#: Readers of files that hold named arrays: module and function, by what `sniff.kind` calls the file.
_ARRAYS: dict[str, tuple[str, str]] = {
    "HDF4": ("hdf4", "open_hdf4"),
    "HDF5": ("hdf", "open_hdf5"),
    "MATLAB": ("mat", "open_mat"),
    "TIFF": ("pages", "open_tiff"),
    "netCDF": ("netcdf", "open_netcdf"),
}
_FAULTS = {
    "git-LFS pointer": "is a git-LFS pointer, not the file itself; run 'git lfs pull'",
    "HTML page": "is an HTML page saved under this name; the download failed, fetch it again",
    "gzip": "is gzip-compressed; unpack it with gunzip first, or read it as /vsigzip/{name}",
    "tar": "is a tar archive; unpack it, or name the image in it as /vsitar/{name}/image.tif",
    "zip": "is a zip archive; unpack it, or name the image in it as /vsizip/{name}/image.tif",
}


@contextmanager
def gdal_env(config: Sequence[str] = ()) -> Iterator[None]:
    """GDAL configured for streaming, for a whole run; `config` holds ``NAME=VALUE`` strings (``--config``).

    The functions here enter it themselves; around several of them it carries the user's configuration.
    """
    from .gdal import environment

    with environment(config):
        yield


def open_cube(name: str | os.PathLike[str], options: ReadOptions | None = None, **changes: Any) -> Cube:
    """Open a scene, its pixels still on disk.

    Parameters
    ----------
    name
        A path (for ENVI the header or the data file), or any name GDAL knows: ``/vsi...``, subdatasets, URLs.
    options
        How to understand what the file leaves open, see `ReadOptions`; `changes` are applied to it.

    Raises
    ------
    ReadError
        Missing, damaged, truncated, or not what its name says.
    UnsupportedError
        Intact, but no raster that can be denoised and given back.
    SceneTooLargeError
        The header announces more than is credible.
    UsageError
        An option is not understood, or does not apply to this file.
    """
    from . import sniff

    options = with_changes(options or ReadOptions(), changes)
    text = os.fspath(name)
    if not sniff.is_utf8(text):
        raise ReadError(f"{sniff.shown(text)}: the name is not UTF-8, which GDAL and HDF5 cannot open; rename it")
    with gdal_env():
        try:
            cube = _open(text, options)
        except OSError as error:
            if isinstance(error, HSIDenoiseError) or error.strerror is None:
                raise
            raise ReadError(f"{error.filename or text}: cannot be opened ({error.strerror})") from error
    try:
        return _amend(cube, options)
    except BaseException:
        cube.close()
        raise


def _amend(cube: Cube, options: ReadOptions) -> Cube:
    """The cube as the options correct what its file says."""
    from . import parts

    if options.wavelengths_from:
        from . import wavelengths

        with gdal_env():
            cube = wavelengths.apply(cube, os.fspath(options.wavelengths_from), open_cube)
    if options.nodata:
        from .nodata import override

        cube = replace(cube, nodata=(override(options.nodata, parts.kind(cube)),) * cube.shape[0])
    return parts.split(cube) if cube.dtype.startswith("complex") else cube


def _open(name: str, options: ReadOptions) -> Cube:
    from . import envi, raster, raw, sniff

    if sniff.is_gdal_name(name):
        _refuse_arrays(name, options)
        if options.header:
            raise UsageError(f"{name}: --header is for raw files on this machine's disks; leave it out")
        return raster.open_raster(name, allow_large=options.allow_large)
    if options.header:
        _refuse_arrays(name, options)
        return raw.open_raw(name, os.fspath(options.header))
    what = sniff.kind(name)
    if what == "folder" or (what == "text" and _is_metadata(name)):
        from . import folder

        return folder.open_folder(name, options, partial(open_cube, allow_large=options.allow_large))
    found = envi.header_of(name) if what not in ("folder", "ENVI header") else None
    if found and envi.announced(found) == os.path.getsize(name):
        # Raw pixels can begin with any bytes, magic ones too; a header that fits to the byte is no chance.
        _refuse_arrays(name, options)
        return envi.open_envi(name, name, found)
    if what in _ARRAYS:
        module, function = _ARRAYS[what]
        reader: Callable[[str, ReadOptions], Cube] = getattr(import_module(f".{module}", __name__), function)
        return reader(name, options)
    _refuse_arrays(name, options)
    if what == "ENVI header":
        return _open_envi(name, envi.data_of(name), name, options)
    if what in ("git-LFS pointer", "HTML page"):
        raise ReadError(f"{name}: {_FAULTS[what]}")
    if what in ("JP2", "VRT"):
        return raster.open_raster(name, allow_large=options.allow_large)
    if found:  # a header beside the file decides before the rest of the magic does
        return _open_envi(name, name, found, options)
    aviris = raw.open_aviris(name, options)
    if aviris:
        return aviris
    if what in _FAULTS:
        raise ReadError(f"{name}: {_FAULTS[what].format(name=name)}")
    plain = _esri_data(name) if name.lower().endswith(".hdr") else name
    try:
        return raster.open_raster(plain, allow_large=options.allow_large)
    except UnsupportedError:
        raise
    except ReadError as error:
        if name.lower().endswith(".hdr") and plain == name:
            raise ReadError(f"{name}: neither an ENVI header (its first line is not ENVI) nor an ESRI one") from error
        if what == "text" and plain == name:
            raise ReadError(f"{name}: is a text file, no raster") from error
        if "not recognized" not in str(error):
            raise
        raise ReadError(
            f"{name}: neither a format GDAL knows nor raw data with an ENVI header ({os.path.basename(name)}.hdr); "
            "name one that lies elsewhere with --header"
        ) from error


def _is_metadata(name: str) -> bool:
    from . import sensors

    return bool(sensors.scene_of_metadata(os.path.basename(name)))


def _refuse_arrays(name: str, options: ReadOptions) -> None:
    for option in ("variable", "axes", "shape"):
        if getattr(options, option):
            kinds = "HDF, netCDF, MATLAB, TIFF of pages"
            raise UsageError(f"{name}: --{option} is for files of several arrays ({kinds}); leave it out")


def _esri_data(header: str) -> str:
    """The data file of an ESRI header, which shares the suffix with ENVI's; the name itself where there is none."""
    stem = header[:-4]
    candidates = [stem + s for x in (".bil", ".bip", ".bsq", ".bin", ".flt", ".dat") for s in (x, x.upper())]
    return next(filter(os.path.isfile, candidates), header)


def _open_envi(name: str, data: str, header: str, options: ReadOptions) -> Cube:
    from . import envi, raster, sniff

    what = sniff.kind(data)
    if what == "git-LFS pointer":
        raise ReadError(f"{data}: {_FAULTS[what]}")
    if what == "TIFF" and envi.announced(header) != os.path.getsize(data):
        # 'file type = TIFF', or the sidecar header of a DESIS product
        return raster.open_raster(data, allow_large=options.allow_large)
    return envi.open_envi(name, data, header)


def __getattr__(name: str) -> Any:
    # Writing is loaded when first used: opening a scene does not need it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import targets, write

    return getattr(targets if name in ("check_output", "output_driver") else write, name)

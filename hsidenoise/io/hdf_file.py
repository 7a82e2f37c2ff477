"""HDF5 files as h5py gives them: opened, listed, checked, and read through a chunk cache that fits."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import h5py
import numpy as np

from ..errors import HSIDenoiseError, MetadataWarning, ReadError, UnsupportedError
from . import hdf_heaps

#: What h5py raises on damaged files: which of them, the layer that notices decides.
FAULTS = (OSError, RuntimeError, KeyError, ValueError, TypeError)
#: Rows of a scene whose chunks stay unpacked, and the memory that may take; one row of chunks is held in any case
#: up to the larger limit, because without it every window would unpack all of them again.
_ROWS, _CACHE, _MOST = 256, 256 * 2**20, 2**30
_EOF = re.compile(r"eof = (\d+).*stored_eof = (\d+)")
_NETCDF = "This is a netCDF dimension"


def text(value: Any) -> str:
    """An attribute or a single value as text: bytes are decoded, arrays of one element count as that element."""
    value = np.ravel(value)[0] if np.size(value) == 1 else value
    return value.decode("utf-8", "replace").strip("\0 ") if isinstance(value, bytes) else str(value).strip("\0 ")


def numbers(value: Any) -> list[str]:
    """Numbers as text, with the digits their own type needs: a float32 0.4268 is no 0.42680001258850098."""
    return [text(v) for v in np.ravel(value)]


def warn(name: str, said: str) -> None:
    """Something in the file's metadata is not used."""
    warnings.warn(f"{name}: {said}", MetadataWarning, stacklevel=4)


class Array(NamedTuple):
    """An array of a file: `flaw` says in a few words why it can hold no measurements, and is empty where it can."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    flaw: str

    def __str__(self) -> str:
        return f"{self.path} ({' x '.join(map(str, self.shape))}) {self.dtype}"


@contextmanager
def reading(name: str, fault: str = "damaged") -> Iterator[None]:
    """What h5py raises becomes one line.

    Raises
    ------
    ReadError
        With the file's name, `fault` and HDF5's reason.
    """
    try:
        yield
    except HSIDenoiseError:
        raise
    except FAULTS as error:
        reason = " ".join(str(error).split())
        sizes = _EOF.search(reason)
        if sizes and int(sizes[1]) < int(sizes[2]):
            raise ReadError(
                f"{name}: truncated: {sizes[1]} bytes where the file itself says {sizes[2]}; fetch it again"
            ) from error
        raise ReadError(f"{name}: {fault} (HDF5: {reason[:200]})") from error


def open_file(name: str) -> h5py.File:
    """Open to read, without a lock: the folder may be read-only, and nothing is written.

    Raises
    ------
    ReadError
        Truncated, damaged, or still open for writing elsewhere.
    """
    with reading(name, "an HDF5 file that cannot be opened"):
        hdf_heaps.check(name)
        return h5py.File(name, "r", locking=False)


def arrays(file: h5py.File) -> list[Array]:
    """Every array of a file in alphabetical order of paths; links to other files are not followed."""
    found: list[Array] = []

    def visit(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(_array(path, item))

    file.visititems(visit)
    return sorted(found)


def _array(path: str, item: h5py.Dataset) -> Array:
    try:
        dtype, shape = item.dtype, item.shape
    except TypeError:  # no NumPy type for it, such as HDF5's times
        return Array(path, (), "unknown", "of a type without numbers")
    return Array(path, shape or (), _word(dtype), _flaw(dtype))


def _word(dtype: np.dtype[Any]) -> str:
    return "compound" if dtype.names else {"S": "text", "U": "text", "O": "objects"}.get(dtype.kind, dtype.name)


def _flaw(dtype: np.dtype[Any]) -> str:
    if dtype.names or dtype.subdtype:
        return "compound values"
    if dtype.kind in "SUOVM":
        return "text, references or opaque values"
    if dtype.kind == "c":
        return "complex, which is not supported; denoise magnitudes"
    if dtype.kind == "b" or h5py.check_enum_dtype(dtype):
        return "class numbers (an enumeration), not measurements"
    return "" if dtype.kind in "iu" or dtype.itemsize <= 8 else "floats longer than 64 bits"


def own(group: h5py.Group) -> list[h5py.Dataset]:
    """The arrays right in a group; links, which may lead nowhere or to other files, are left out."""
    items = [group[key] for key in group if isinstance(group.get(key, getlink=True), h5py.HardLink)]
    return [item for item in items if isinstance(item, h5py.Dataset)]


def is_netcdf(file: h5py.File) -> bool:
    """Whether the netCDF library wrote it: its own root attribute, or its dimensions among the root's arrays.

    Before version 4.4.1 it left only scales without a mark, so that the conventions named must tell.
    """
    if "_NCProperties" in file.attrs:
        return True
    if text(file.attrs.get("Conventions", "")).startswith("CF-") and any(item.is_scale for item in own(file)):
        return True
    return any(
        "_Netcdf4Dimid" in item.attrs or text(item.attrs.get("NAME", "")).startswith(_NETCDF) for item in own(file)
    )


def check(name: str, file: h5py.File, path: str) -> None:
    """Refuse an array whose values cannot be read, or lie where a copy of the file would write to them too.

    Raises
    ------
    UnsupportedError
        Its values lie in another file, or are packed by a filter that is not installed.
    """
    item = file[path]
    if not isinstance(item, h5py.Dataset):
        raise UnsupportedError(f"{name}: {path} is no array but a group or a type")
    if item.is_virtual or item.external or not os.path.samefile(item.file.filename, name):
        raise UnsupportedError(f"{name}: the values of {path} lie in other files (a link, external or virtual storage)")
    plan = item.id.get_create_plist()
    for code, _, _, label in map(plan.get_filter, range(plan.get_nfilters())):
        if not h5py.h5z.filter_avail(code):
            said = label.decode(errors="replace").split(";")[0] if label else ""
            raise UnsupportedError(
                f"{name}: {path} is packed by the HDF5 filter {code} ({said or 'without a name'}), which is not "
                "installed; unpack it first (h5repack -f NONE)"
            )


def dataset(file: h5py.File, path: str, axes: Sequence[int]) -> h5py.Dataset:
    """An array to read or write in windows of rows, its chunk cache sized for that.

    Parameters
    ----------
    path
        Of the array. It must not be open elsewhere, or HDF5 keeps the cache it has.
    axes
        Stored axes of bands, rows and columns, -1 for bands where there is one; rows may be -1 where unknown.
    """
    need, count = _cache(file[path], axes)
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    if need:
        access.set_chunk_cache(min(100 * count + 1, 2**22 + 15), need, 1.0)
    return h5py.Dataset(h5py.h5d.open(file.id, path.encode(), access))


def _cache(item: h5py.Dataset, axes: Sequence[int]) -> tuple[int, int]:
    """Bytes to hold the chunks of some rows, and how many chunks that is; 0 where nothing is chunked."""
    if not item.chunks:
        return 0, 0
    chunk = math.prod(item.chunks) * item.dtype.itemsize
    rows = axes[1]
    across = math.prod(math.ceil(item.shape[a] / item.chunks[a]) for a in axes if a >= 0 and a != rows)
    down = math.ceil(_ROWS / item.chunks[rows]) + 1 if rows >= 0 else 1
    least = across * chunk
    need = min(max(least, min(across * down * chunk, _CACHE)), _MOST)
    return need, max(need // chunk, 1)

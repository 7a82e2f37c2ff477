"""A writer that takes a scene row by row and leaves either a whole file or none."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cube import Cube
from ..errors import UsageError, WriteError
from . import parts, targets
from .plan import Plan, decide
from .sink import Sink

_FULL = 2**20  # bytes; with less than that left, a failed write needs no other explanation


class CubeWriter:
    """Takes a scene row by row; on a clean exit the output appears under its name, otherwise nothing does.

    Attributes
    ----------
    path
        The image file (for ENVI the data file, even where the header was named).
    shape, dtype
        What `write` expects in all: ``(bands, rows, cols)`` and the NumPy dtype name.
    """

    def __init__(self, plan: Plan, shape: tuple[int, int, int], sink: Callable[[], Sink]) -> None:
        self.path = plan.path
        self.shape = shape
        self.dtype = plan.dtype
        self._targets = targets.occupied(plan.path, plan.driver)
        self._open = sink
        self._sink: Sink | None = None
        self._row = 0

    def __enter__(self) -> CubeWriter:
        try:
            with _writing(self.path):
                self._sink = self._open()
                self._sink.open()
        except BaseException:  # an interrupt too may come at any moment
            if self._sink is not None:
                self._sink.discard()
            raise
        return self

    def write(self, row_start: int, block: NDArray[Any]) -> None:
        """Write the next rows.

        Parameters
        ----------
        row_start
            Zero-based first row; must follow on the rows written before.
        block
            ``(bands, n_rows, cols)`` in the output's dtype.

        Raises
        ------
        ValueError
            Rows out of order, or a block of another shape or dtype (a mistake in the program).
        WriteError
            The disk is full or gone.
        """
        bands, rows, cols = self.shape
        stop = row_start + block.shape[1]
        if row_start != self._row or stop > rows:
            raise ValueError(f"rows {row_start} to {stop} do not follow on row {self._row} of {rows}")
        if block.shape[0] != bands or block.shape[2] != cols or block.dtype != np.dtype(self.dtype):
            raise ValueError(f"a block of {block.shape} {block.dtype} in an output of {self.shape} {self.dtype}")
        if self._sink is None:
            raise ValueError("use the writer as a context manager")
        with _writing(self.path):
            self._sink.write(row_start, block)
        self._row = stop

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sink, self._sink = self._sink, None
        if sink is None:
            return
        try:
            if kind is None:
                if self._row != self.shape[1]:
                    raise WriteError(f"{self.path}: only {self._row} of {self.shape[1]} rows were written")
                with _writing(self.path):
                    _commit(sink.finish(), self._targets)
        finally:
            sink.discard()


@contextlib.contextmanager
def _writing(path: str) -> Any:
    from . import gdal

    try:
        with gdal.environment():
            yield
    except (UsageError, WriteError):
        raise
    except (OSError, *gdal.FAILURES) as error:
        # libtiff does not tell GDAL the reason.
        full = os.path.isdir(os.path.dirname(os.path.abspath(path))) and _free(path) < _FULL
        why = "the disk is full" if full else gdal.cause(error)
        raise WriteError(f"{path}: cannot be written ({why}); nothing is left under this name") from error


def _commit(pairs: list[tuple[str, str]], targets: Sequence[str]) -> None:
    """Flush to disk, then rename, sidecars before the image; remove sidecars of a replaced image that have no heir."""
    for temporary, _ in pairs:
        handle = os.open(temporary, os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    heirs = {final for _, final in pairs}
    for stale in targets:
        if stale not in heirs and os.path.lexists(stale):
            os.remove(stale)
    for temporary, final in pairs:
        os.replace(temporary, final)
    folder = os.open(os.path.dirname(os.path.abspath(pairs[-1][1])), os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError:
        pass  # some network file systems have no fsync for folders; the files themselves are safe
    finally:
        os.close(folder)


def create_cube(
    path: str | os.PathLike[str],
    like: Cube,
    *,
    dtype: str = "",
    nodata: str = "",
    of: str = "",
    co: Sequence[str] = (),
    overwrite: bool = False,
    provenance: Mapping[str, str] = {},
    bands: Sequence[int] | None = None,
) -> CubeWriter:
    """Start an output that has everything `like` has but its pixels.

    Parameters
    ----------
    path
        The output; its suffix chooses the driver unless `of` does.
    like
        The input; must stay open until the writer is closed (masks are copied row by row).
    dtype, nodata
        Override the input's; empty keeps it. `nodata` is a number, ``nan`` or ``null``.
    of
        ``GTiff``, ``COG``, ``ENVI``, ``netCDF`` or ``copy``.
    co
        GDAL creation options ``NAME=VALUE``; for ENVI ``INTERLEAVE``, for netCDF ``COMPRESS`` and ``ZLEVEL`` only.
    overwrite
        Replace an output that exists.
    provenance
        Written to the tag namespace ``HSIDENOISE``, in ENVI to the key ``hsidenoise``.
    bands
        Zero-based bands of `like` the output holds; all by default.

    Returns
    -------
    CubeWriter
        A context manager; write full-width rows in order.

    Raises
    ------
    OutputExistsError, UsageError
        See `check_output`; or an option the format cannot honour.
    WriteError
        The output cannot be created, or not enough room is left on the disk.
    """
    halves = like
    joined = parts.whole(like, targets.output_driver(path, of, like.layout.get("complex", like)), dtype, bands)
    if joined:
        like, bands = joined
    decided = decide(path, like, dtype, nodata, of, co, bands)
    sources = [f for f in like.layout.get("files", ()) if os.path.isfile(f)]
    targets.check_output(path, inputs=[*sources, like.name], overwrite=overwrite, of=decided.driver)
    shape = (len(decided.bands), *like.shape[1:])
    size = math.prod(shape) * np.dtype(decided.dtype).itemsize
    if not _options(decided, like).get("compress"):
        _room(decided.path, size)
    module, name = _SINKS[decided.driver]
    sink: Callable[[Plan, Cube, Mapping[str, str]], Sink] = getattr(import_module(module, __package__), name)
    if joined:
        taken = decided._replace(dtype=parts.kind(like))
        twice = (2 * shape[0], *shape[1:])
        return CubeWriter(taken, twice, lambda: parts.Joined(sink(decided, like, provenance), decided, halves))
    return CubeWriter(decided, shape, lambda: sink(decided, like, provenance))


_SINKS = {
    "GTiff": (".write_gtiff", "GTiffSink"), "COG": (".write_gtiff", "GTiffSink"), "ENVI": (".write_envi", "EnviSink"),
    "netCDF": (".write_netcdf", "NetcdfSink"), "copy": (".write_copy", "CopySink"),
}  # fmt: skip


def _options(plan: Plan, like: Cube) -> dict[str, Any]:
    """How the pixels will be stored: interleave, compression and what else the driver decides."""
    from . import write_envi, write_gtiff

    if plan.driver == "ENVI":
        return {"interleave": write_envi.interleave(plan, like)}
    if plan.driver in ("GTiff", "COG"):
        return write_gtiff.profile(plan, like)
    if plan.driver == "netCDF":
        from . import write_netcdf

        return write_netcdf.options(plan, like)
    return {"interleave": like.layout.get("interleave", ""), "compress": like.layout.get("compress", "")}


def _free(path: str) -> int:
    import shutil

    return shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free


def _room(path: str, size: int) -> None:
    free = _free(path)
    if size > free:
        raise WriteError(f"{path}: needs {size / 2**20:,.1f} MiB, the disk has {free / 2**20:,.1f} MiB left")


def describe_output(
    path: str | os.PathLike[str],
    like: Cube,
    *,
    dtype: str = "",
    nodata: str = "",
    of: str = "",
    co: Sequence[str] = (),
    bands: Sequence[int] | None = None,
) -> dict[str, Any]:
    """What `create_cube` would make of the same arguments, without touching the disk.

    Returns
    -------
    dict
        ``path, driver, shape, dtype, nodata, interleave, compress, bytes`` (before compression) and ``options``.
    """
    joined = parts.whole(like, targets.output_driver(path, of, like.layout.get("complex", like)), dtype, bands)
    if joined:
        like, bands = joined
    decided = decide(path, like, dtype, nodata, of, co, bands)
    shape = (len(decided.bands), *like.shape[1:])
    options = _options(decided, like)
    return {
        "path": decided.path,
        "driver": decided.driver,
        "shape": shape,
        "dtype": decided.dtype,
        "nodata": decided.nodata[0] if decided.nodata else None,
        "interleave": options.get("interleave", ""),
        "compress": options.get("compress", ""),
        "bytes": math.prod(shape) * np.dtype(decided.dtype).itemsize,
        "options": {k: v for k, v in options.items() if k not in ("interleave", "compress")},
    }

"""Denoising in memory: arrays, labelled arrays and files, for scripts and notebooks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .bands import from_envi
from .cube import Cube
from .errors import UsageError
from .settings import ReadOptions

if TYPE_CHECKING:
    import xarray

_SPECTRAL = ("wavelength", "wavelengths", "band", "bands", "wl", "channel", "spectral")


#: Longest edge of a scene's picture in a notebook, in pixels.
EDGE = 256


def open_cube(name: str | os.PathLike[str], options: ReadOptions | None = None, **changes: Any) -> Cube:
    """Open a scene, its pixels still on disk; in a notebook it shows itself with a small picture.

    See `hsidenoise.io.open_cube` for parameters and errors.
    """
    from . import io

    return replace(io.open_cube(name, options, **changes), on_show=show)


def show(cube: Cube) -> str:
    """A picture of a scene and a few facts, as HTML."""
    from html import escape

    from .pictures import View, choose_rgb, encode, plate

    bands, rows, cols = cube.shape
    usable = [b for b, good in enumerate(cube.bands.usable()) if good]
    chosen, words = choose_rgb(cube.bands, cube.tags, usable)
    step = -(-max(rows, cols) // EDGE)
    panel = plate("", "", {"before": cube, "after": cube}, View(cube.window(), step, step), chosen).panels[0]
    known = [w for w in cube.bands.wavelength if w == w]
    facts = [cube.format, f"{bands} bands, {rows} x {cols} pixels", cube.dtype]
    facts += [f"{min(known):.0f} to {max(known):.0f} nm"] if known else []
    lines = "".join(f"<div>{escape(text)}</div>" for text in (cube.name, *facts, words))
    return f'<div><img src="{encode(panel.pixels, 85)}" alt="{escape(words)}"></div>{lines}'


def denoise(
    scene: NDArray[Any] | xarray.DataArray | str | os.PathLike[str], *, model: str = "auto", device: str = "auto",
    tile: int = 0, shifts: int = 1, bidx: str = "", nodata: float | None = None, axes: str = "",
    wavelengths: Sequence[float] = (), quiet: bool = True,
) -> Any:  # fmt: skip
    """Denoise a scene in memory.

    Parameters
    ----------
    scene
        An array; an ``xarray.DataArray`` with a spectral and two spatial dimensions; or the name of a file that
        `open_cube` opens, whose pixels are read. NaN, infinity, `nodata` and what is masked are no measurements.
    model, device, tile, shifts, bidx
        As of ``hsidenoise run``.
    nodata
        Overrides the file's, or the ``_FillValue`` of a DataArray.
    axes
        Of an array, in order: ``byx`` (bands, rows, columns; the default), ``yxb``, ``ybx``...
    wavelengths
        Of an array's bands in nm, if they are known: bands are then told apart by detector.
    quiet
        No progress.

    Returns
    -------
    numpy.ndarray or xarray.DataArray
        As the input: same shape, data type, dimensions, coordinates and attributes; of a file an array (bands,
        rows, columns). What is no measurement, and bands that are left alone, come back as they were.

    Raises
    ------
    UsageError
        The array has not three axes, or an option cannot be honoured.
    HSIDenoiseError
        As drawn in `hsidenoise.errors`.

    Examples
    --------
    >>> import numpy as np
    >>> import hsidenoise
    >>> rng = np.random.default_rng(0)
    >>> truth = np.linspace(0.2, 0.8, 40)[:, None, None] * np.linspace(0.5, 1, 64)[:, None] * np.ones(64)
    >>> noisy = truth + 0.02 * rng.standard_normal(truth.shape)
    >>> clean = hsidenoise.denoise(noisy)
    >>> clean.shape, bool(np.std(clean - truth) < 0.2 * np.std(noisy - truth))
    ((40, 64, 64), True)
    """
    chosen: dict[str, Any] = {"model": model, "device": device, "tile": tile, "shifts": shifts, "bidx": bidx}
    chosen["quiet"] = quiet
    if isinstance(scene, str | os.PathLike):
        with open_cube(scene, nodata="" if nodata is None else repr(nodata)) as cube:
            return _denoised(cube, **chosen)
    if isinstance(scene, np.ndarray):
        order = _order(axes or "byx")
        told = {"wavelength": _text(wavelengths), "wavelength units": "nm"}
        return _array(scene, order, nodata, told, chosen)
    if hasattr(scene, "data_vars"):
        raise UsageError(f"an xarray.Dataset: name one of its variables ({', '.join(map(str, scene.data_vars))})")
    if hasattr(scene, "dims") and hasattr(scene, "coords"):
        return _labelled(scene, nodata, wavelengths, chosen)
    raise UsageError(f"{type(scene).__name__}: denoise takes an array, an xarray.DataArray or the name of a file")


def _order(axes: str) -> tuple[int, int, int]:
    if sorted(axes) != ["b", "x", "y"]:
        raise UsageError(f"axes {axes!r}: name each of b (bands), y (rows) and x (columns) once")
    return axes.index("b"), axes.index("y"), axes.index("x")


def _array(
    values: NDArray[Any], order: tuple[int, int, int], nodata: float | None, told: dict[str, str],
    chosen: dict[str, Any],
) -> NDArray[Any]:  # fmt: skip
    if values.ndim != 3 or 0 in values.shape or values.dtype.kind not in "iuf":
        raise UsageError(f"an array of {values.dtype} {values.shape}: give numbers with three axes")
    cube = Cube.of(np.asarray(values).transpose(order), nodata)
    cube = replace(cube, bands=from_envi(told, cube.shape[0], "wavelengths"))
    if isinstance(values, np.ma.MaskedArray):
        mask = Cube.of(~np.ma.getmaskarray(values).transpose(order))
        cube = replace(cube, read_mask=mask.read_raw)
    clean = np.ascontiguousarray(_denoised(cube, **chosen).transpose(np.argsort(order)))
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.array(clean, mask=values.mask, fill_value=values.fill_value)
    return clean


def _labelled(scene: Any, nodata: float | None, wavelengths: Sequence[float], chosen: dict[str, Any]) -> Any:
    names = [str(name) for name in scene.dims]
    spectral = [i for i, name in enumerate(names) if name.lower() in _SPECTRAL]
    if len(names) != 3 or len(spectral) != 1:
        raise UsageError(f"a DataArray of {', '.join(names)}: of three, one must be called wavelength or band")
    rows, cols = (i for i in range(3) if i != spectral[0])
    if nodata is None:
        nodata = scene.attrs.get("_FillValue", scene.encoding.get("_FillValue"))
    told = {"wavelength": _text(wavelengths), "wavelength units": "nm"}
    name = names[spectral[0]]
    for key in (name, "wavelength", "wavelengths"):
        if not len(wavelengths) and "wave" in key.lower() and key in scene.coords and scene[key].dims == (name,):
            unit = str(scene[key].attrs.get("units", ""))
            told = {"wavelength": _text(scene[key].values), "wavelength units": unit}
    clean = _array(scene.values, (spectral[0], rows, cols), nodata, told, chosen)
    return scene.copy(data=clean)


def _text(wavelengths: Sequence[float]) -> str:
    return "{" + ", ".join(str(w) for w in wavelengths) + "}" if len(wavelengths) else ""


def _denoised(cube: Cube, *, model: str, device: str, tile: int, shifts: int, bidx: str, quiet: bool) -> NDArray[Any]:
    from .device import pick
    from .engine import Engine
    from .job import prepare, select_bands
    from .model.weights import find, load
    from .rows import output_rows

    network, card = load(find(model, sum(cube.bands.usable())))
    engine = Engine(network, card, pick(device), shifts)
    with np.errstate(over="ignore"):
        job = prepare(cube, select_bands(bidx, cube), engine, tile)
        rows = output_rows(cube, job, engine, cube.dtype, [], quiet=quiet)
        return np.concatenate([part.block for part in rows], axis=1)

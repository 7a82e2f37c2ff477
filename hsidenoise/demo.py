"""The demo scene: a generated landscape as a hyperspectral imager would record it, and the same without noise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import scenery
from .bands import Bands
from .errors import OutputExistsError, UsageError, WriteError

NODATA, SCALE = -9999, 1e-4
EPSG, PIXEL, CORNER = 32632, 4.0, (691_200.0, 5_334_800.0)
OPAQUE = (1400.0, 1900.0)  # nm, where water vapour lets nothing through


def demo(
    folder: str | Path,
    *,
    size: tuple[int, int] = (256, 320),
    bands: int = 84,
    seed: int = 2026,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write ``scene.tif`` (noisy) and ``truth.tif`` (the same without noise) into `folder`.

    Both are int16 reflectance times 10000 in UTM zone 32 N with wavelengths, widths, two bands flagged bad
    and a nodata border; only the pixels differ.

    Parameters
    ----------
    folder
        Made if it is not there.
    size
        Rows and columns, each at least 96.
    bands
        Number of bands from 400 to 2450 nm, at least 24.
    seed
        Of everything random: the same seed gives the same scene.
    overwrite
        Replace the two files if they exist.

    Returns
    -------
    dict
        Ready for JSON: ``scene`` and ``truth`` (paths), ``shape`` (bands, rows, cols), ``seed``, and what was put in,
        band numbers starting at 1: ``bad_bands``, ``striped_bands``, ``dead_columns`` (band, column), and
        ``sigma`` (standard deviation of the random noise per band, in reflectance).

    Raises
    ------
    UsageError
        `size` or `bands` is too small.
    OutputExistsError
        A file is there and `overwrite` is false.
    WriteError
        The files cannot be written.
    """
    if min(size) < 96 or bands < 24:
        raise UsageError(f"demo: {size[0]} x {size[1]} x {bands} is too small; take at least 96 x 96 pixels, 24 bands")
    folder = Path(folder)
    paths = {name: folder / f"{name}.tif" for name in ("scene", "truth")}
    for path in paths.values():
        if path.exists() and not overwrite:
            raise OutputExistsError(f"{path}: exists; pass --overwrite to replace it")
    rng = np.random.default_rng(seed)
    axis = _spectral_axis(bands)
    truth = _reflectance(np.array(axis.wavelength), size, rng)
    noisy, record = _record(truth, axis, rng)
    valid = _footprint(size)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, cube in (("scene", noisy), ("truth", truth)):
            _write(paths[name], cube, valid, axis, f"hsidenoise demo, {name}, seed {seed}")
    except OSError as error:
        raise WriteError(f"{folder}: cannot write the demo scene ({error}); choose another folder") from error
    return {**{k: str(v) for k, v in paths.items()}, "shape": list(truth.shape), "seed": seed, **record}


def _spectral_axis(count: int) -> Bands:
    """Two detectors, as in most imagers: finer steps below 1000 nm, coarser above."""
    near = round(0.36 * count)
    wavelength = np.concatenate([np.linspace(400, 988, near), np.linspace(1006, 2450, count - near)]).round(2)
    fwhm = (np.gradient(wavelength) * 1.08).clip(5, None).round(2)
    good = np.ones(count, bool)
    good[[int(np.abs(wavelength - nm).argmin()) for nm in OPAQUE]] = False
    names = tuple(f"Band {i + 1} ({nm:.1f} nm)" for i, nm in enumerate(wavelength))
    return Bands(count, tuple(wavelength.tolist()), tuple(fwhm.tolist()), tuple(good.tolist()), names)


def _reflectance(nm: NDArray[np.float64], size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """The landscape's reflectance, ``(bands, rows, cols)``."""
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    sunlit, skylit = scenery.landscape(even, rng)
    curves = scenery.spectra(nm).astype(np.float32).T
    sky = (0.2 * (nm / 550) ** -1.4).astype(np.float32)[:, None]  # bluer than sunlight
    cube = np.tensordot((1 - sky) * curves, sunlit, 1) + np.tensordot(sky * curves, skylit, 1)
    return np.asarray(cube[:, : size[0], : size[1]], np.float32)


def _sigma(nm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Read noise per band: more at the ends of each detector and beside the water vapour bands."""

    def dip(centre: float, width: float) -> NDArray[np.float64]:
        return np.exp(-0.5 * ((nm - centre) / width) ** 2)

    near = nm < 1000
    ends = np.where(near, 0.016 * np.exp((400 - nm) / 50) + 0.012 * np.exp((nm - 990) / 35),
                    0.008 * np.exp((1000 - nm) / 40) + 0.020 * np.exp((nm - 2450) / 120))  # fmt: skip
    water = 0.006 * dip(940, 25) + 0.007 * dip(1130, 25) + 0.06 * dip(OPAQUE[0], 30) + 0.06 * dip(OPAQUE[1], 36)
    return np.asarray(0.005 + ends + water)


def _record(
    truth: NDArray[np.float32], axis: Bands, rng: np.random.Generator
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """What a pushbroom imager makes of the scene: photon and read noise, stripes, dead columns, hits."""
    count, rows, cols = truth.shape
    nm = np.array(axis.wavelength)
    good = np.flatnonzero(axis.good)
    read = _sigma(nm) * np.exp(rng.normal(0, 0.22, count))
    read[rng.choice(good, count // 20, replace=False)] *= 2.5
    photon = 0.016**2  # variance per unit of reflectance
    noisy = truth.copy()
    for band in range(count):
        spread = np.sqrt(read[band] ** 2 + photon * truth[band])
        noisy[band] += (spread * rng.standard_normal((rows, cols))).astype(np.float32)
    sigma = np.sqrt(read**2 + photon * truth.mean((1, 2)))
    # a column of each detector has an offset of its own, shared in part by all its bands; a few bands are far worse
    strength = np.full(count, 0.2)
    striped = np.sort(rng.choice(good, max(3, count // 12), replace=False))
    strength[striped] = rng.uniform(1.0, 2.2, len(striped))
    shared = {flag: rng.standard_normal(cols) for flag in (True, False)}
    for band in range(count):
        offset = 0.5 * shared[bool(nm[band] < 1000)] + 0.87 * rng.standard_normal(cols)
        noisy[band] += (strength[band] * sigma[band] * offset).astype(np.float32)
    dead = []
    for column in rng.choice(np.arange(8, cols - 8), 6, replace=False):
        first = int(rng.choice(good[:-2]))
        for line in range(first, first + int(rng.integers(1, 3))):
            if axis.good[line]:
                noisy[line, :, column] = 0
                dead.append((line + 1, int(column) + 1))
    for struck in rng.choice(good, max(3, count // 10), replace=False):
        hits = rng.random((rows, cols)) < 0.001
        noisy[struck, hits] += rng.uniform(0.15, 0.6, int(hits.sum())).astype(np.float32)
    bad = np.flatnonzero(~np.array(axis.good))
    noisy[bad] = rng.normal(0.02, 0.15, (len(bad), rows, cols))
    return noisy, {
        "bad_bands": [int(b) + 1 for b in bad],
        "striped_bands": [int(b) + 1 for b in striped],
        "dead_columns": dead,
        "sigma": [round(float(s), 5) for s in sigma],
    }


def _footprint(size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels the imager saw: flying north with a crab angle slants its first and last line, not the columns."""
    row, col = np.mgrid[: size[0], : size[1]]
    start = 0.012 * size[0] + 0.085 * col
    stop = size[0] * 0.988 - 0.085 * (size[1] - 1 - col)
    side = max(3, size[1] // 80)
    return np.asarray((row >= start) & (row < stop) & (col >= side) & (col < size[1] - side))


def _write(path: Path, cube: NDArray[np.float32], valid: NDArray[np.bool_], axis: Bands, title: str) -> None:
    """One GeoTIFF, complete or not at all."""
    import rasterio

    pixels = np.where(valid, (cube / SCALE).round().clip(-9000, 32767), NODATA).astype(np.int16)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    profile = dict(driver="GTiff", dtype="int16", nodata=NODATA, count=axis.count, height=cube.shape[1],
                   width=cube.shape[2], crs=f"EPSG:{EPSG}", interleave="band", tiled=True, blockxsize=256,
                   blockysize=256, compress="deflate", predictor=2,
                   transform=rasterio.Affine(PIXEL, 0, CORNER[0], 0, -PIXEL, CORNER[1]))  # fmt: skip
    try:
        with rasterio.open(part, "w", **profile) as out:
            out.write(pixels)
            out.scales, out.offsets = (SCALE,) * axis.count, (0.0,) * axis.count
            out.descriptions = axis.names
            out.update_tags(TIFFTAG_IMAGEDESCRIPTION=title, AREA_OR_POINT="Area")
            for i, (nm, width, good) in enumerate(zip(axis.wavelength, axis.fwhm, axis.good, strict=True), 1):
                out.update_tags(i, wavelength=f"{nm:g}", wavelength_units="Nanometers", fwhm=f"{width:g}",
                                bbl=str(int(good)))  # fmt: skip
                out.update_tags(i, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{nm / 1000:.6f}",
                                FWHM_UM=f"{width / 1000:.6f}")  # fmt: skip
        with open(part, "rb+") as done:
            os.fsync(done.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)

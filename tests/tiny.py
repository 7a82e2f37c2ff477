"""A network small enough to run in milliseconds, and scenes to run it on: what the tests of `run` share."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from hsidenoise.model.decsc import DECSC, build
from hsidenoise.model.weights import Card, save

#: What the tiny card states: enough for tiles of 80 pixels.
HALO = 16
TRANSFORM = Affine(30.0, 0, 600_000, 0, -30.0, 5_000_000)
GEOTIFF: dict[str, Any] = {"driver": "GTiff", "crs": "EPSG:32632", "transform": TRANSFORM, "interleave": "band"}


def network(**changes: Any) -> DECSC:
    """An untrained network: started as a frame, it takes a third of white noise away in three evaluations."""
    torch.manual_seed(0)
    tiny = {"shared": 16, "local": 8, "kernel": 8, "stride": 4, "heads": 2, "depth": 1, "ratio": 2, "evaluations": 3}
    return build("decsc", **tiny | {"noise_weighted": True} | changes)


def contracting() -> DECSC:
    """A network whose solver gets to 1e-6 within its evaluations: no shared codes, and local ones damped by a gate.

    It is no denoiser, but its answer does not depend on where the solver stopped.
    """
    model = network(evaluations=60, tolerance=1e-6)
    with torch.no_grad():
        model.theta_shared.fill_(10.0)
        model.net2.expand.bias.fill_(-1.0)
    return model


def weights(path: Path, model: DECSC | None = None, *, floor: float = 0.0, halo: int = HALO, **changes: Any) -> Path:
    """Save a network (`network` with `changes` by default) with a card of this floor and halo."""
    model = model or network(**changes)
    save(model, Card(path.stem, "decsc", asdict(model.config), noise=("g55",), floor=floor, halo=halo), path)
    return path


def cube(bands: int = 40, rows: int = 36, cols: int = 44, *, sigma: float = 0.03, seed: int = 0) -> NDArray[np.float64]:
    """Noisy reflectance (bands, rows, cols) about [0, 1]: three smooth materials, mixed smoothly, and white noise."""
    noise = np.random.default_rng(seed).standard_normal((bands, rows, cols))
    return clean(bands, rows, cols, seed=seed) + sigma * noise


def clean(bands: int = 40, rows: int = 36, cols: int = 44, *, seed: int = 0) -> NDArray[np.float64]:
    """The same without noise."""
    rng = np.random.default_rng(1000 + seed)
    x, y = np.meshgrid(np.linspace(0, 3, cols), np.linspace(0, 3, rows))
    maps = np.stack([1 + np.sin(a * x + b * y + c) for a, b, c in rng.uniform(0.5, 3, (3, 3))])
    maps /= maps.sum(0)
    nm = np.linspace(0, 1, bands)
    spectra = np.stack([0.5 + 0.35 * np.sin(2 * np.pi * (f * nm + p)) for f, p in ((0.5, 0.1), (0.8, 0.5), (1.2, 0.9))])
    return np.tensordot(spectra.T, maps, 1)


def wavelengths(bands: int) -> list[float]:
    """Centres in nm, 10 nm apart."""
    return [400.0 + 10.0 * i for i in range(bands)]


def geotiff(path: Path, pixels: NDArray[Any], *, bad: tuple[int, ...] = (), **profile: Any) -> Path:
    """Write a GeoTIFF with wavelengths, names, a dataset tag, and bands flagged `bad` (zero-based)."""
    bands, rows, cols = pixels.shape
    options = GEOTIFF | {"count": bands, "height": rows, "width": cols, "dtype": pixels.dtype.name} | profile
    with rasterio.open(path, "w", **options) as file:
        file.write(pixels)
        file.update_tags(mission="test", flown="2024-06-01")
        for i, nm in enumerate(wavelengths(bands), 1):
            flag = str(int(i - 1 not in bad))
            file.update_tags(i, wavelength=f"{nm:g}", wavelength_units="Nanometers", fwhm="12.5", bbl=flag)
            file.set_band_description(i, f"band at {nm:g} nm")
    return path


def envi(
    path: Path, pixels: NDArray[Any], interleave: str, *, bad: tuple[int, ...] = (), nodata: float | None = None
) -> Path:
    """Write an ENVI file and its header as text, byte by byte; returns the data file."""
    bands, rows, cols = pixels.shape
    codes = {"uint8": 1, "int16": 2, "int32": 3, "float32": 4, "float64": 5, "uint16": 12, "uint32": 13}
    axes = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}[interleave]
    path.write_bytes(np.ascontiguousarray(pixels.transpose(axes)).tobytes())
    lines = [
        "ENVI", "description = { made by hand }", f"samples = {cols}", f"lines = {rows}", f"bands = {bands}",
        "header offset = 0", "file type = ENVI Standard", f"data type = {codes[pixels.dtype.name]}",
        f"interleave = {interleave}", "byte order = 0",
        "map info = {UTM, 1, 1, 600000, 5000000, 30, 30, 32, North, WGS-84}", "wavelength units = Nanometers",
        "wavelength = {" + ", ".join(f"{nm:g}" for nm in wavelengths(bands)) + "}",
        "bbl = {" + ", ".join(str(int(b not in bad)) for b in range(bands)) + "}",
        "sensor type = made by hand",
    ]  # fmt: skip
    lines += [f"data ignore value = {nodata:g}"] if nodata is not None else []
    path.with_suffix(".hdr").write_text("\n".join(lines) + "\n")
    return path


def pixels(path: Path) -> NDArray[Any]:
    """All pixels of a file as rasterio reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            return file.read()

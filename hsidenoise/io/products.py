"""The table of sensor products in HDF5: where each keeps its cube, wavelengths, good bands, nodata and grid.

A place is a path from the root; ``./`` starts it at the cube's group, ``@`` names an attribute of the cube, ``/@`` one
of the root. ``*`` stands for any name in a path, ``|`` separates alternatives of which the first one there counts.

Layouts after the products' documents and the readers of EnMAP-Box, prismaread, HyTools, acolite and HyperCoast, and
the EMIT, NEON and Planet user guides.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import h5py

from ..cube import Geo
from . import hdf_axes, hdf_geo
from .hdf_file import Array, numbers, text


class Values(NamedTuple):
    """What the stored numbers mean: physical = raw * scale + offset, never applied."""

    nodata: str = ""
    scale: float = 1.0
    offset: float = 0.0


class Detector(NamedTuple):
    """One cube of a product, and the places of its wavelengths, widths and flags of good bands."""

    cube: str
    wavelength: str
    fwhm: str = ""
    good: str = ""


class Product(NamedTuple):
    """A row of the table.

    Parameters
    ----------
    name
        For people.
    detectors
        Stacked as bands in this order; each must be there.
    axes
        Of the stored cubes: bands, rows and columns as ``b``, ``y``, ``x``.
    mark
        A place that must be there too, where the cube's name alone is no proof.
    values, geo
        How to tell nodata and scale, and the grid.
    """

    name: str
    detectors: tuple[Detector, ...]
    axes: str
    mark: str = ""
    values: Callable[[h5py.File, h5py.Dataset], Values] = lambda file, cube: cf_values(file, cube)
    geo: Callable[[h5py.File, h5py.Dataset, Sequence[int]], Geo] = hdf_geo.none


class Part(NamedTuple):
    """A stored array of consecutive bands and all that is known of it; lists are empty where nothing is."""

    path: str
    axes: str
    wavelength: list[str]
    unit: str
    fwhm: list[str]
    good: list[str]
    values: Values


def cf_values(file: h5py.File, cube: h5py.Dataset) -> Values:
    """Nodata and scale by the CF conventions, or by attributes that mean the same."""
    names = ("_FillValue", "missing_value", "Data_Ignore_Value", "NOVALUE", "nodata")
    said = next((text(cube.attrs[n]) for n in names if n in cube.attrs), "")
    return Values(said, _factor(cube.attrs.get("scale_factor"), 1.0), _factor(cube.attrs.get("add_offset"), 0.0))


def _neon_values(file: h5py.File, cube: h5py.Dataset) -> Values:
    # Reflectance is the stored number divided by the scale factor.
    return cf_values(file, cube)._replace(scale=_inverse(cube.attrs.get("Scale_Factor")))


def _prisma_values(file: h5py.File, cube: h5py.Dataset) -> Values:
    """L1: divided by a factor. L2: between two limits, and 0 is no measurement (off the swath, a failed retrieval)."""
    detector = "Vnir" if "VNIR" in cube.name else "Swir"
    if f"L2Scale{detector}Max" in file.attrs:
        low, high = (_decimal(file.attrs.get(f"L2Scale{detector}{end}")) for end in ("Min", "Max"))
        if low is None or high is None:
            return Values("0")
        return Values("0", float((high - low) / 65535), float(low))
    # Readers disagree on the sign of the offset. It is 0 in practice; where it is not, nothing is claimed.
    if _factor(file.attrs.get(f"Offset_{detector}"), 0.0) != 0:
        return Values()
    return Values(scale=_inverse(file.attrs.get(f"ScaleFactor_{detector}")))


def _decimal(value: Any) -> Decimal | None:
    try:
        found = None if value is None else Decimal(text(value))
    except InvalidOperation:
        return None
    return found if found is not None and found.is_finite() else None


def _factor(value: Any, default: float) -> float:
    found = _decimal(value)
    return default if found is None else float(found)


def _inverse(value: Any) -> float:
    found = _decimal(value)
    return float(1 / found) if found else 1.0


_PRISMA = "HDFEOS/SWATHS/PRS_L*_HCO/Data Fields/"
_OCI, _SEEN, _FOUND = "sensor_band_parameters/", "observation_data/", "geophysical_data/"

TABLE = (
    # The grid in its root attributes is that of the GLT, not of the swath.
    Product(
        "EMIT",
        (Detector("radiance|reflectance", _OCI + "wavelengths", _OCI + "fwhm", _OCI + "good_wavelengths"),),
        "yxb",
        mark="location/glt_x",
    ),
    Product(
        "PRISMA",
        (
            Detector(_PRISMA + "VNIR_Cube", "/@List_Cw_Vnir", "/@List_Fwhm_Vnir", "/@List_Cw_Vnir_Flags"),
            Detector(_PRISMA + "SWIR_Cube", "/@List_Cw_Swir", "/@List_Fwhm_Swir", "/@List_Cw_Swir_Flags"),
        ),
        "ybx",
        values=_prisma_values,
        geo=hdf_geo.prisma,
    ),
    Product(
        "NEON AOP",
        (
            Detector(
                "*/Reflectance/Reflectance_Data",
                "./Metadata/Spectral_Data/Wavelength",
                "./Metadata/Spectral_Data/FWHM",
            ),
        ),
        "yxb",
        values=_neon_values,
        geo=hdf_geo.neon,
    ),
    Product(
        "AVIRIS",
        (Detector("radiance/radiance|reflectance/reflectance", "./wavelength|./wavelengths", "./fwhm"),),
        "byx",
        geo=hdf_geo.grid_mapping,
    ),
    Product(
        "Tanager",
        (
            Detector(
                "HDFEOS/*/HYP/Data Fields/toa_radiance|HDFEOS/*/HYP/Data Fields/surface_reflectance",
                "@wavelengths",
                "@fwhm",
                "@good_wavelengths",
            ),
        ),
        "byx",
        geo=hdf_geo.eos_grid,
    ),
    Product(
        "PACE OCI L1B",
        tuple(
            Detector(f"{_SEEN}rhot_{d}|{_SEEN}Lt_{d}", f"{_OCI}{d}_wavelength", f"{_OCI}{d}_bandpass")
            for d in ("blue", "red", "SWIR")
        ),
        "byx",
    ),
    # Of its wavelength lists only wavelength_3d has the length of the cube.
    Product("PACE OCI L2", (Detector(f"{_FOUND}Rrs|{_FOUND}rhos|{_FOUND}*", _OCI + "wavelength_3d"),), "yxb"),
)


def identify(file: h5py.File, stored: Sequence[Array], only: str = "") -> tuple[Product, list[Part]] | None:
    """The row a file belongs to, with its cubes described; ``None`` where it is none of the table's.

    Parameters
    ----------
    file, stored
        The open file and its arrays.
    only
        Take this array alone (a path), where it is one of the product's.
    """
    cubes = [a for a in stored if len(a.shape) == 3 and not a.flaw]
    for product in TABLE:
        if product.mark and product.mark not in file:
            continue
        found = [_cube(file, cubes, d, only) for d in product.detectors]
        if all(found) or (only and any(found)):
            pairs = [(d, a) for d, a in zip(product.detectors, found, strict=True) if a]
            return product, [_part(file, product, d, a) for d, a in pairs]
    return None


def _cube(file: h5py.File, cubes: Sequence[Array], detector: Detector, only: str) -> Array | None:
    for pattern in detector.cube.split("|"):
        hits = [a for a in cubes if fnmatch.fnmatchcase(a.path, pattern) and (not only or a.path == only)]
        if pattern.endswith("/*"):  # any name: then the number of wavelengths must tell
            hits = [a for a in hits if len(_list(file, a.path, detector.wavelength)[0]) == a.shape[2]]
        if len(hits) == 1:
            return hits[0]
    return None


def _part(file: h5py.File, product: Product, detector: Detector, cube: Array) -> Part:
    wavelength, unit = _list(file, cube.path, detector.wavelength)
    fwhm, _ = _list(file, cube.path, detector.fwhm)
    good, _ = _list(file, cube.path, detector.good)
    axes = product.axes
    if wavelength and len(wavelength) != cube.shape[axes.index("b")]:  # a version with the axes in another order
        axes = hdf_axes.from_lengths(cube.shape, [len(wavelength)]) or axes
    if "0" in (absent := ["0" if _decimal(w) == 0 else "1" for w in wavelength]):
        # A band that was never acquired: its place is kept.
        flags = good if len(good) == len(absent) else ["1"] * len(absent)
        good = ["0" if a == "0" else f for a, f in zip(absent, flags, strict=True)]
    values = product.values(file, file[cube.path])
    return Part(cube.path, axes, wavelength, unit or "nm", fwhm, good, values)


def _list(file: h5py.File, cube: str, places: str) -> tuple[list[str], str]:
    """The numbers at a place, and their unit if they say one."""
    for place in filter(None, places.split("|")):
        if "@" in place:
            attributes = file.attrs if place.startswith("/") else file[cube].attrs
            key = place.partition("@")[2]
            if key in attributes:
                units = (f"{key}_units", f"{key.removesuffix('s')}_units")
                return numbers(attributes[key]), next((text(attributes[u]) for u in units if u in attributes), "")
            continue
        path = cube.rpartition("/")[0] + place[1:] if place.startswith("./") else place
        if isinstance(file.get(path), h5py.Dataset) and file[path].ndim == 1:
            attributes = file[path].attrs
            unit = next((text(attributes[u]) for u in ("units", "Units") if u in attributes), "")
            return numbers(file[path][()]), unit
    return [], ""

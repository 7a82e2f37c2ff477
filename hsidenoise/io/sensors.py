"""Products delivered as one file for each band: their names, and the wavelengths that these stand for.

Wavelengths are band centres, widths the distance of the band's limits, both in nm. Sources: USGS, "What are the band
designations for the Landsat satellites?" (limits); ESA, Sentinel-2 MSI spectral bands (nominal centre and width);
Yasuma et al., CAVE multispectral image database (400 to 700 nm in steps of 10 nm).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..bands import Bands
from . import hyperion

_TM = {"1": (450, 520), "2": (520, 600), "3": (630, 690), "4": (760, 900), "5": (1550, 1750), "7": (2080, 2350)}
_ETM = _TM | {"4": (770, 900), "7": (2090, 2350)}
_OLI = {"1": (430, 450), "2": (450, 510), "3": (530, 590), "4": (640, 670), "5": (850, 880), "6": (1570, 1650),
        "7": (2110, 2290), "9": (1360, 1380)}  # fmt: skip
_MSI = {"B01": (443, 20), "B02": (490, 65), "B03": (560, 35), "B04": (665, 30), "B05": (705, 15), "B06": (740, 15),
        "B07": (783, 20), "B08": (842, 115), "B8A": (865, 20), "B09": (945, 20), "B10": (1375, 30), "B11": (1610, 90),
        "B12": (2190, 180)}  # fmt: skip

_TIFF = r"\.tiff?"
_HYPERION = re.compile(r"(EO1H\w+)_B(\d{3})_(L1\w+)" + _TIFF, re.IGNORECASE)
_LANDSAT = re.compile(r"(L([TECO])0?([4-9])\w*?)(?:_SR)?_B(?:AND)?(\d{1,2})" + _TIFF, re.IGNORECASE)
_SENTINEL = re.compile(r"(?:(\w*?)_)?(B\d\d|B8A)(?:_[126]0m)?(?:\.jp2|" + _TIFF + ")", re.IGNORECASE)
_CAVE = re.compile(r"(\w+_ms)_(\d\d)\.png", re.IGNORECASE)
_S2_SCENE = re.compile(r"S2[A-D]_|(?:L2A_)?T\d\d[A-Z]{3}_", re.IGNORECASE)
_METADATA = re.compile(r"((?:EO1H|L[TECO]0?[4-9])\w*?)_MTL(?:_L1\w+)?\.txt", re.IGNORECASE)


class Product(NamedTuple):
    """The bands of a product, in order.

    Parameters
    ----------
    name
        Of the sensor.
    files
        File names, by the band's number.
    scenes
        What their names begin with.
    bands
        Wavelengths, widths, flags, names.
    scale
        Of each band; empty where the files themselves know, or nothing is certain.
    fill
        What pixels outside of the scene hold where the files do not say so; ``None`` if they have no such pixels.
    """

    name: str
    files: tuple[str, ...]
    scenes: frozenset[str]
    bands: Bands
    scale: tuple[float, ...] = ()
    fill: int | None = 0


def scene_of_metadata(name: str) -> str:
    """The scene whose metadata file (``..._MTL.txt``, ``..._MTL_L1T.TXT``) is called so; empty if it is none."""
    found = _METADATA.fullmatch(name)
    return found[1] if found else ""


def recognise(names: Sequence[str]) -> Product | None:
    """The product that these files are; others among them, such as quality, thermal and panchromatic ones, are not in
    it.
    """
    for reader in (_hyperion, _landsat, _sentinel, _cave):
        product = reader(names)
        if product is not None:
            return product
    return None


def _hyperion(names: Sequence[str]) -> Product | None:
    matches = [m for m in map(_HYPERION.fullmatch, names) if m and 1 <= int(m[2]) <= hyperion.BANDS]
    if not matches:
        return None
    matches.sort(key=lambda m: int(m[2]))
    numbers = [int(m[2]) for m in matches]
    bands = hyperion.bands(numbers, [f"B{n:03}" for n in numbers])
    files, scenes = tuple(m[0] for m in matches), frozenset(m[1] for m in matches)
    return Product("Hyperion", files, scenes, bands, hyperion.scale(numbers, signed=True))


def _landsat(names: Sequence[str]) -> Product | None:
    found = []
    for match in filter(None, map(_LANDSAT.fullmatch, names)):
        sensor, satellite, number = match[2].upper(), int(match[3]), int(match[4])
        table = _OLI if sensor in "CO" and satellite > 7 else _ETM if sensor == "E" else _TM if sensor == "T" else {}
        if str(number) in table:
            found.append((number, match[0], match[1], table[str(number)]))
    if not found:
        return None
    found.sort()
    bands = Bands(
        len(found), tuple((a + b) / 2 for *_, (a, b) in found), tuple(float(b - a) for *_, (a, b) in found),
        names=tuple(f"B{n}" for n, *_ in found),
    )  # fmt: skip
    return Product("Landsat", tuple(f for _, f, *_ in found), frozenset(scene for _, _, scene, _ in found), bands)


def _sentinel(names: Sequence[str]) -> Product | None:
    found = {}
    for name in names:
        match = _SENTINEL.fullmatch(name)
        if match and match[2].upper() in _MSI:
            # A band may be there in several resolutions: each is a file of its own, and the grids will be told apart.
            found[name] = (list(_MSI).index(match[2].upper()), match[1] or "", match[2].upper())
    bare = all(not scene for _, scene, _ in found.values())
    if not found or not (
        all(_S2_SCENE.match(scene) for _, scene, _ in found.values())
        or (bare and any(band == "B8A" for _, _, band in found.values()))
    ):
        return None
    files = sorted(found, key=lambda n: (found[n][0], n))
    values = [_MSI[found[n][2]] for n in files]
    bands = Bands(
        len(files), tuple(float(c) for c, _ in values), tuple(float(w) for _, w in values),
        names=tuple(found[n][2] for n in files),
    )  # fmt: skip
    # Old products name each file's band of its own scene; what they share is the tile.
    return Product("Sentinel-2", tuple(files), frozenset(scene for _, scene, _ in found.values()), bands)


def _cave(names: Sequence[str]) -> Product | None:
    found = {int(m[2]): (n, m[1]) for n in names if (m := _CAVE.fullmatch(n))}
    if sorted(found) != list(range(1, 32)):
        return None
    order = sorted(found)
    files = tuple(found[n][0] for n in order)
    bands = Bands(31, tuple(390.0 + 10 * n for n in order), names=tuple(stem(f) for f in files))
    return Product("CAVE", files, frozenset(found[n][1] for n in order), bands, fill=None)


def stem(name: str) -> str:
    """A file's name without its suffix."""
    return name.rpartition(".")[0] or name

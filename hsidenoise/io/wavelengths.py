"""``--wavelengths-from``: band centres and widths from another scene, an ENVI header or a table of text."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..bands import Bands, from_envi, split_list, to_envi
from ..cube import Cube
from ..errors import UsageError
from . import header, sniff

_LARGEST = 16 * 2**20  # bytes of a table
_SPECTRAL = ("wavelength units", "wavelength", "fwhm")
_TAGS = {"wavelength", "wavelength units", "fwhm", "central wavelength um", "fwhm um"}
_UNIT = re.compile(r"(?:^|[\s(\[_])(nm|[uµμ]m|nanomet\w*|micromet\w*|microns?)\b", re.IGNORECASE)
_COLUMNS = (
    ("fwhm", re.compile(r"fwhm|width", re.IGNORECASE)),
    ("wavelength", re.compile(r"wave|^wl|lambda|cent(er|re)|^[uµμn]m$", re.IGNORECASE)),
)


def apply(cube: Cube, path: str, opener: Callable[[str], Cube]) -> Cube:
    """The cube with wavelengths and widths from `path`, and without any of its own in tags or header.

    Raises
    ------
    UsageError
        `path` holds none, or not one a band.
    ReadError
        It cannot be read.
    """
    count = cube.shape[0]
    found, files = _find(path, count, opener)
    if not found.wavelength:
        raise UsageError(f"--wavelengths-from {path}: there are no wavelengths in it")
    bands = replace(cube.bands, wavelength=found.wavelength, fwhm=found.fwhm)
    layout: dict[str, Any] = {**cube.layout, "spectrum": path, "files": (*cube.layout.get("files", ()), *files)}
    tags = {ns: _without(items) for ns, items in cube.tags.items()}
    if "header" in layout:
        # Its own header comes back line by line, so the lines themselves are replaced.
        old, new = layout["header"].keys(), to_envi(Bands(count, found.wavelength, found.fwhm))
        changes = {key: new.get(key) for key in _SPECTRAL if key in new or key in old}
        layout["header"] = header.parse(header.update(layout["header"], changes), path)
        tags["ENVI"] = layout["header"].tags()
    band_tags = tuple({ns: _without(items) for ns, items in band.items()} for band in cube.band_tags)
    return replace(cube, bands=bands, tags=tags, band_tags=band_tags, layout=layout)


def _without(items: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in items.items() if " ".join(k.replace("_", " ").lower().split()) not in _TAGS}


def _find(path: str, count: int, opener: Callable[[str], Cube]) -> tuple[Bands, tuple[str, ...]]:
    """The bands of a file that must tell of `count`, and the files they come from."""
    what = "" if sniff.is_gdal_name(path) else sniff.kind(path)
    if what == "ENVI header":
        keys = header.read(path).keys()
        items = split_list(keys.get("wavelength", ""))
        _check(path, len(items), count)
        return from_envi({k: v for k, v in keys.items() if k in _SPECTRAL}, count, path), (path,)
    if what == "text" or (not what and path.lower().endswith((".csv", ".txt"))):
        rows, keys = columns(path)
        _check(path, rows, count)
        return from_envi(keys, count, path), (path,)
    with opener(path) as cube:
        if cube.bands.wavelength:
            _check(path, cube.shape[0], count)
        return cube.bands, tuple(f for f in cube.layout.get("files", (path,)) if os.path.isfile(f))


def _check(path: str, found: int, count: int) -> None:
    if found and found != count:
        raise UsageError(f"--wavelengths-from {path}: it has {found} wavelengths, the scene has {count} bands")


def columns(path: str) -> tuple[int, dict[str, str]]:
    """Number of rows of a table, and its columns as header keys ``wavelength``, ``fwhm``, ``wavelength units``.

    Rows of one (centre) or more columns (centre, width), before which a column may only count bands. Columns are parted
    by commas, semicolons, tabs or blanks; between semicolons or tabs a comma is a decimal one. A first row of words may
    name them, and the unit; lines that begin with ``#`` are skipped.

    Raises
    ------
    UsageError
        It is no such table.
    """
    if os.path.getsize(path) > _LARGEST:
        raise UsageError(f"{path}: is too large for a table of wavelengths")
    with open(path, "rb") as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # the micro sign of older spreadsheets
    lines = [line.strip() for line in text.splitlines()]
    rows = [_cells(line) for line in lines if line and not line.startswith("#")]
    names = rows.pop(0) if rows and not any(map(_is_number, rows[0])) else []
    wrong = next((i for i, row in enumerate(rows, 1) if not any(map(_is_number, row))), 0)
    if wrong or not rows:
        raise UsageError(f"{path}: " + (f"row {wrong} of the table holds no number" if wrong else "holds no number"))
    at = _named(names) if len(names) == len(rows[0]) else {}
    if "wavelength" not in at:
        first = 1 if _running(rows) else 0
        at = {"wavelength": first, "fwhm": first + 1}
    found = {key: "{" + ", ".join(row[i] if i < len(row) else "" for row in rows) + "}" for key, i in at.items()}
    if not found.get("fwhm", "").strip("{, }"):
        found.pop("fwhm", None)
    unit = _UNIT.search(" ".join([*names[at["wavelength"] : at["wavelength"] + 1], *names]))
    return len(rows), found | ({"wavelength units": unit[1]} if unit else {})


def _cells(line: str) -> list[str]:
    if ";" in line or "\t" in line:
        parts = [part.strip().strip('"') for part in re.split(r"[;\t]", line)]
        return [p.replace(",", ".") if re.fullmatch(r"[-+]?\d+,\d+", p) else p for p in parts]
    parts = line.split(",") if "," in line else line.split()
    return [part.strip().strip('"') for part in parts]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _named(names: Sequence[str]) -> dict[str, int]:
    """Which column is which, by the words of a header row."""
    at: dict[str, int] = {}
    for i, name in enumerate(names):
        key = next((k for k, pattern in _COLUMNS if pattern.search(name.strip())), "")
        if key:
            at.setdefault(key, i)
    return at


def _running(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first of several columns only counts the bands, from 0 or 1."""
    if min(map(len, rows)) < 2 or not all(_is_number(row[0]) for row in rows):
        return False
    numbers = [float(row[0]) for row in rows]
    return any(numbers == [float(i + first) for i in range(len(rows))] for first in (0, 1))

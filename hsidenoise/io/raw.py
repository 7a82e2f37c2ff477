"""Raw pixels without a header beside them: one named by the user, or the fixed layout of classic AVIRIS.

AVIRIS scenes up to the 2000s come as bare 16-bit big-endian integers, band-interleaved by pixel, 614 samples of 224
bands a line. What the bands are stands in small tables that go by the name of the flight line: ``.spc`` (centres and
widths in nm) and ``.gain`` (by which the integers were multiplied).
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import replace

from ..bands import split_list
from ..cube import Cube
from ..errors import MetadataWarning, UsageError
from ..settings import ReadOptions
from . import envi, header, sniff, wavelengths

_SAMPLES, _BANDS = 614, 224
_LINE = _SAMPLES * _BANDS * 2
_FLIGHT = re.compile(r"f\d{6}t\d{2}p\d{2}", re.IGNORECASE)
_SCENE = re.compile(r"_sc\d+", re.IGNORECASE)
# Raw pixels may begin with the magic of these by chance; the user's word counts more.
_BY_CHANCE = ("", "text", "gzip", "zip")


def open_raw(name: str, path: str) -> Cube:
    """Open a raw file with the ENVI header `path`, wherever that lies and whatever header lies beside the file.

    Raises
    ------
    UsageError
        The file is no raw one, or `path` is no ENVI header.
    ReadError, UnsupportedError
        See `envi.open_envi`.
    """
    what = sniff.kind(name)
    if what == "ENVI header":
        raise UsageError(f"{name}: is a header itself; name the data file and give this one with --header")
    if what not in _BY_CHANCE:
        raise UsageError(f"{name}: is a {what}, no raw file; leave --header out")
    if sniff.kind(path) != "ENVI header":
        raise UsageError(f"--header {path}: is no ENVI header, its first line is not ENVI")
    return envi.open_envi(name, name, path)


def open_aviris(name: str, options: ReadOptions) -> Cube | None:
    """Open a classic AVIRIS scene; ``None`` where size or name and tables do not say that it is one."""
    size = os.path.getsize(name)
    if not size or size % _LINE:
        return None
    spectrum, gain = (_table(name, suffix) for suffix in (".spc", ".gain"))
    if not spectrum and not gain and not _FLIGHT.match(os.path.basename(name)):
        return None
    keys = {"samples": _SAMPLES, "lines": size // _LINE, "bands": _BANDS, "header offset": 0,
            "file type": "ENVI Standard", "data type": 2, "interleave": "bip", "byte order": 1,
            "sensor type": "AVIRIS"} | (spectrum or {})  # fmt: skip
    if not spectrum and not options.wavelengths_from:
        text = f"{name}: an AVIRIS scene without its .spc file, so without wavelengths; give --wavelengths-from"
        warnings.warn(text, MetadataWarning, stacklevel=4)
    if gain:
        factors = [float(item) for item in split_list(gain["wavelength"])]
        keys["data gain values"] = "{" + ", ".join(repr(1 / f) for f in factors) + "}"
    head = header.parse("".join(["ENVI\n", *(f"{k} = {v}\n" for k, v in keys.items())]).encode(), name)
    cube = envi.describe(name, name, head, name)
    files = (name, *(f for f in (_beside(name, ".spc"), _beside(name, ".gain")) if f))
    return replace(cube, layout={**cube.layout, "files": files})


def _table(name: str, suffix: str) -> dict[str, str] | None:
    """The columns of a table that belongs to the scene, if it has a positive number for each band."""
    path = _beside(name, suffix)
    if path is None:
        return None
    try:
        rows, keys = wavelengths.columns(path)
        if rows == _BANDS and all(float(item) > 0 for item in split_list(keys["wavelength"])):
            return keys | {"wavelength units": "Nanometers"}
    except ValueError:
        pass
    warnings.warn(f"{path}: is no table of {_BANDS} bands; not used", MetadataWarning, stacklevel=5)
    return None


def _beside(name: str, suffix: str) -> str | None:
    """A file of the scene's or its flight line's name, with or without the processing letter (``.a``)."""
    folder, base = os.path.split(name)
    stems = [base]
    while os.path.splitext(stems[-1])[1]:
        stems.append(os.path.splitext(stems[-1])[0])
    stems += [_SCENE.sub("", stem) for stem in stems]
    wanted = [(stem + suffix).lower() for stem in stems]
    found = {entry.lower(): entry for entry in os.listdir(folder or ".")}
    hit = next((found[w] for w in wanted if w in found), None)
    return os.path.join(folder, hit) if hit else None

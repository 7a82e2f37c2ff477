"""ENVI output: raw pixels in the input's interleave and byte order, and a header that says what the input's said.

GDAL's own ENVI writer is not used: it turns int8 into uint8, shears into rotations, big endian into little, splits
band names at commas, writes an absolute path into ``description`` and reorders unknown keys.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bands import split_list, to_envi
from ..cube import Cube
from ..errors import MetadataWarning, UsageError
from . import georef
from . import header as header_
from .envi import DTYPES
from .plan import Plan, temporary

_CODES = {name: code for code, name in DTYPES.items()}
_PER_BAND = ("wavelength", "fwhm", "bbl", "band names", "data gain values", "data offset values",
             "data reflectance gain values", "data reflectance offset values")  # fmt: skip
# What create_cube sets itself, so that copies from another container's ENVI tags do not contradict it.
_OWN = {"samples", "lines", "bands", "header offset", "file type", "data type", "interleave", "byte order", "map info",
        "projection info", "coordinate system string", "file compression", "description",
        "hsidenoise"}  # fmt: skip
# TIFF tags that describe the container, which an ENVI file replaces.
_CONTAINER = ("AREA_OR_POINT", "TIFFTAG_RESOLUTIONUNIT", "TIFFTAG_XRESOLUTION", "TIFFTAG_YRESOLUTION")


def interleave(plan: Plan, like: Cube) -> str:
    """``bsq``, ``bil`` or ``bip``: as asked for, as the suffix says, as the input's, else bil.

    Raises
    ------
    UsageError
        A creation option ENVI output does not have.
    """
    unknown = set(plan.co) - {"INTERLEAVE"}
    asked = plan.co.get("INTERLEAVE", "").lower()
    if unknown or asked not in ("", "bsq", "bil", "bip"):
        raise UsageError(f"--co {next(iter(unknown), 'INTERLEAVE')}: ENVI output knows INTERLEAVE=BSQ, BIL or BIP only")
    suffix = os.path.splitext(plan.path)[1].lower().removeprefix(".")
    if asked or suffix in ("bsq", "bil", "bip"):
        return asked or suffix
    # Rows arrive with all their bands: bil writes them in one go, bsq in one seek a band (four times slower).
    return str(like.layout["interleave"]) if like.layout.get("driver") == "ENVI" and "header" in like.layout else "bil"


class EnviSink:
    """Pixels into one temporary file; header and sidecar written when the last row is there."""

    def __init__(self, plan: Plan, like: Cube, provenance: Mapping[str, str]) -> None:
        self._plan = plan
        self._shape = (len(plan.bands), *like.shape[1:])
        self._interleave = interleave(plan, like)
        self._header = _header(plan, like, self._interleave, provenance)
        self._aux = georef.to_sidecar(like.geo) if _needs_sidecar(like) else b""
        self._offset = int(like.layout.get("header_offset", 0)) if _same_kind(like) else 0
        big = _same_kind(like) and like.layout["byte_order"] == 1
        self._dtype = np.dtype(plan.dtype).newbyteorder(">" if big else "<")
        self._data = temporary(plan.path)
        self._file: Any = None
        self._source = like.layout["files"][0] if self._offset else ""
        self._small: list[str] = []

    def open(self) -> None:
        """Create the data file in its full length, an embedded header in front."""
        self._file = open(self._data, "xb")  # noqa: SIM115 - closed by finish or discard
        if self._offset:
            with open(self._source, "rb") as source:
                _copy(source, self._file, self._offset)
        self._file.truncate(self._offset + int(np.prod(self._shape)) * self._dtype.itemsize)

    def write(self, row_start: int, block: NDArray[Any]) -> None:
        """Put rows in their place."""
        bands, rows, cols = self._shape
        item = self._dtype.itemsize
        if self._interleave == "bsq":
            for band in range(bands):
                self._file.seek(self._offset + (band * rows + row_start) * cols * item)
                self._file.write(np.ascontiguousarray(block[band], self._dtype).data)
            return
        self._file.seek(self._offset + row_start * bands * cols * item)
        axes = (1, 0, 2) if self._interleave == "bil" else (1, 2, 0)
        self._file.write(np.ascontiguousarray(block.transpose(axes), self._dtype).data)

    def finish(self) -> list[tuple[str, str]]:
        """Close the data and write the small files."""
        self._file.close()
        pairs = [(temporary(self._plan.header), self._plan.header, self._header)]
        if self._aux:
            pairs.append((temporary(self._plan.path), self._plan.path + ".aux.xml", self._aux))
        self._small = [p[0] for p in pairs]
        for path, _, content in pairs:
            with open(path, "xb") as file:
                file.write(content)
        return [*((p[0], p[1]) for p in pairs), (self._data, self._plan.path)]

    def discard(self) -> None:
        """Close, and remove what was not renamed."""
        if self._file is not None:
            self._file.close()
        for path in (self._data, *self._small):
            if os.path.exists(path):
                os.remove(path)


def _copy(source: Any, target: Any, size: int) -> None:
    while size:
        chunk = source.read(min(size, 2**22))
        if not chunk:
            raise OSError("the input's embedded header is cut short")
        target.write(chunk)
        size -= len(chunk)


def _same_kind(like: Cube) -> bool:
    return "header" in like.layout


def _needs_sidecar(like: Cube) -> bool:
    """What an ENVI header cannot say to GDAL: control points not from the header itself, and RPCs beside a grid."""
    keys = like.layout["header"].keys() if _same_kind(like) else {}
    return bool((like.geo.gcps and "geo points" not in keys) or (like.geo.rpcs and like.geo.transform))


def _header(plan: Plan, like: Cube, order: str, provenance: Mapping[str, str]) -> bytes:
    base: dict[str, str | None] = {
        "samples": str(like.shape[2]),
        "lines": str(like.shape[1]),
        "bands": str(len(plan.bands)),
        "data type": str(_CODES[plan.dtype]),
        "interleave": order,
    }
    if provenance:
        items = ", ".join(f"{k}: {v}" for k, v in provenance.items())
        base["hsidenoise"] = "{" + _clean(items) + "}"
    masked = like.layout.get("mask", "") not in ("", "tag")
    _warn(plan, "ENVI has no masks; which pixels the input masks is not carried, GTiff keeps it", masked)
    if _same_kind(like):
        return header_.update(like.layout["header"], _changes(plan, like, base))
    base |= {"header offset": "0", "file type": "ENVI Standard", "byte order": "0"}
    return header_.update(header_.Header(()), base | _from_tags(plan, like))


def _changes(plan: Plan, like: Cube, base: dict[str, str | None]) -> dict[str, str | None]:
    """What differs from the input's own header; equal values leave their line alone, down to the blanks."""
    keys = like.layout["header"].keys()
    for key, value in list(base.items()):
        said = keys.get(key, "")
        number = key in ("samples", "lines", "bands", "data type")
        same = float(said.strip("{} ") or 0) == float(value or 0) if number else said.strip("{} ").lower() == value
        if said and same:
            base[key] = said
    if "byte order" not in keys:
        base["byte order"] = str(like.layout["byte_order"])
    if keys.get("file compression", "0").strip() != "0":
        base["file compression"] = "0"
        base["header offset"] = "0"
    if plan.nodata_asked or like.nodata[0] != like.layout["header_nodata"]:
        base["data ignore value"] = _value(plan.nodata)
    if plan.bands != tuple(range(like.shape[0])):
        for key in _PER_BAND:
            items = split_list(keys.get(key, ""))
            if len(items) == like.shape[0]:
                base[key] = "{" + ", ".join(items[i] for i in plan.bands) + "}"
        base["default bands"] = None
    return base


def _from_tags(plan: Plan, like: Cube) -> dict[str, str | None]:
    """Header keys for an input that was no ENVI file."""
    out: dict[str, str | None] = {}
    bands = like.bands.select(plan.bands)
    for key, value in like.tags.get("ENVI", {}).items():
        name = " ".join(key.replace("_", " ").lower().split())
        if name not in _OWN and name not in _PER_BAND:
            out[name] = value if value.startswith("{") else _clean(value)
    out.pop("data ignore value", None)
    colours = [like.layout["colorinterp"][i] for i in plan.bands] if like.layout.get("colorinterp") else []
    if {"red", "green", "blue"} <= set(colours):
        out.setdefault("default bands", f"{{{', '.join(str(colours.index(c) + 1) for c in ('red', 'green', 'blue'))}}}")
    out |= georef.to_header(like.geo, plan.path)
    if any(len(split_list("{" + n + "}")) > 1 or "}" in n for n in bands.names):
        _warn(plan, "ENVI ends band names at commas and braces; they are replaced", True)
    spectral = to_envi(bands)
    original = _original_text(plan, like)
    out |= spectral | {k: v for k, v in original.items() if k in spectral}
    if plan.nodata and plan.nodata[0] is not None:
        out["data ignore value"] = _value(plan.nodata)
        several = len(set(map(repr, plan.nodata))) > 1  # NaN differs from NaN, its text does not
        _warn(plan, "ENVI has one nodata value for all bands; the first band's is kept", several)
    for key, values, plain in (("data gain values", like.scale, 1.0), ("data offset values", like.offset, 0.0)):
        chosen = [values[i] for i in plan.bands]
        if any(v != plain for v in chosen):
            out[key] = "{" + ", ".join(map(_number, chosen)) + "}"
    lost = sorted(k for k in like.tags.get("", {}) if k not in _CONTAINER)
    _warn(plan, f"ENVI headers hold no TIFF tags; not carried: {', '.join(lost[:5])}; GTiff keeps them", bool(lost))
    return out


def _original_text(plan: Plan, like: Cube) -> dict[str, str | None]:
    """Lists an earlier conversion from ENVI left in the dataset's ENVI domain: their text has every original digit."""
    tags = {" ".join(k.replace("_", " ").lower().split()): v for k, v in like.tags.get("ENVI", {}).items()}
    count = like.shape[0]
    if len(split_list(tags.get("wavelength", ""))) != count:
        return {}
    out: dict[str, str | None] = {}
    for key in ("wavelength", "fwhm", "bbl", "band names"):
        items = split_list(tags.get(key, ""))
        if len(items) == count:
            whole = plan.bands == tuple(range(count)) and tags[key].startswith("{")
            out[key] = tags[key] if whole else "{" + ", ".join(items[i] for i in plan.bands) + "}"
    out["wavelength units"] = tags.get("wavelength units") or None
    return out


def _value(nodata: tuple[float | None, ...]) -> str | None:
    first = next((v for v in nodata if v is not None), None)
    return None if first is None else _number(first)


def _number(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return str(int(value)) if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15) else repr(value)


def _clean(text: str) -> str:
    return " ".join(text.replace("{", "(").replace("}", ")").split())


def _warn(plan: Plan, text: str, when: bool) -> None:
    if when:
        warnings.warn(f"{plan.path}: {text}", MetadataWarning, stacklevel=5)

"""Files beside an image that say what it does not: metadata XML of EnMAP and DESIS, ENVI-style headers of TIFFs."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from xml.parsers import expat

from ..bands import Bands, from_envi
from ..errors import MetadataWarning, ReadError
from . import envi, header

_LARGEST = 64 * 2**20  # bytes of XML; real ones have less than one
_IMAGE = re.compile(r"-SPECTRAL_IMAGE", re.IGNORECASE)
_DETECTOR = re.compile(r"-SPECTRAL_IMAGE_(VNIR|SWIR)\b", re.IGNORECASE)
_CENTRE = "wavelengthcenterofband"
_LISTS = {"vnirproductquality": "VNIR", "swirproductquality": "SWIR"}


@dataclass(frozen=True)
class Sidecar:
    """What a sidecar says of an image, and its path; `scale` and `offset` are empty where it says nothing of them."""

    path: str
    bands: Bands
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Band:
    number: int
    keys: dict[str, str]


def find(name: str, shape: tuple[int, int, int], bands: Bands) -> Sidecar | None:
    """The first sidecar of an image ``(bands, rows, cols)`` that fits it; `bands` is what the image itself says."""
    if not os.path.isfile(name):
        return None
    return _header(name, shape, bands) or _metadata(name, shape[0], bands)


def _header(name: str, shape: tuple[int, int, int], bands: Bands) -> Sidecar | None:
    """An ENVI-style header beside a TIFF (DESIS products), where its size is the TIFF's."""
    path = envi.header_of(name)
    if path is None:
        return None
    try:
        keys = header.read(path).keys()
        fits = tuple(int(float(keys[k])) for k in ("bands", "lines", "samples")) == shape
    except (ReadError, KeyError, ValueError, OverflowError):
        return None
    if not fits or "wavelength" not in keys:
        return None
    found = from_envi(keys, shape[0], path)
    found = replace(bands, wavelength=found.wavelength, fwhm=found.fwhm, good=bands.good or found.good)
    gains = envi.factors(keys, "data gain values", shape[0], 1.0, path)
    return Sidecar(path, found, gains, envi.factors(keys, "data offset values", shape[0], 0.0, path))


def _metadata(name: str, count: int, bands: Bands) -> Sidecar | None:
    """``*-METADATA.XML`` beside ``*-SPECTRAL_IMAGE*.TIF``: centres, widths and gains of each band (EnMAP, DESIS).

    Bands are listed in the order of the image. The lists of expected channels say which of them each detector took:
    an image of one detector holds those only, and in an image of both they may take turns where the two overlap.
    """
    path = _metadata_path(name)
    if path is None:
        return None
    try:
        listed, channels = _parse(path)
    except (expat.ExpatError, OSError, ValueError) as error:
        warnings.warn(f"{path}: cannot be read ({error}); not used", MetadataWarning, stacklevel=4)
        return None
    one = _DETECTOR.search(os.path.basename(name))
    if one and len(listed) != count:
        wanted = set(channels.get(one[1].upper(), ()))
        listed = [b for b in listed if b.number in wanted]
    if len(listed) != count:
        if listed:
            warnings.warn(
                f"{path}: tells of {len(listed)} bands, the image has {count}; not used", MetadataWarning, stacklevel=4
            )
        return None
    keys = {"wavelength": _list(listed, _CENTRE), "wavelength units": "nm"}
    keys["fwhm"] = _list(listed, "fwhmofband", "wavelengthwidthofband")
    found = from_envi(keys, count, path)
    detectors = tuple(next((d for d, c in channels.items() if b.number in c), "") for b in listed)
    return Sidecar(
        path,
        replace(bands, wavelength=found.wavelength, fwhm=found.fwhm, detectors=detectors if all(detectors) else ()),
        _numbers(listed, "gainofband"),
        _numbers(listed, "offsetofband"),
    )


def _metadata_path(name: str) -> str | None:
    """The XML that shares the image's name up to the kind of file; of an image cut from the product, its beginning."""
    folder, base = os.path.split(name)
    hit = _IMAGE.search(base)
    if hit is None:
        return None
    stem = base[: hit.start()].upper()
    ends = [e for e in os.listdir(folder or ".") if e.upper().endswith("-METADATA.XML")]
    fits = [e for e in ends if stem.startswith(e[: -len("-METADATA.XML")].upper())]
    return os.path.join(folder, max(fits, key=len)) if fits else None


def _list(listed: Sequence[_Band], *keys: str) -> str:
    values = [next((b.keys[k] for k in keys if b.keys.get(k)), "") for b in listed]
    return "{" + ", ".join(values) + "}" if any(values) else ""


def _numbers(listed: Sequence[_Band], key: str) -> tuple[float, ...]:
    try:
        return tuple(float(b.keys[key]) for b in listed)
    except (KeyError, ValueError):
        return ()


def _parse(path: str) -> tuple[list[_Band], dict[str, tuple[int, ...]]]:
    """Every element with a ``wavelengthCenterOfBand`` in it, and the channels of each detector; case is ignored.

    Raises
    ------
    ValueError
        Too large, or it declares entities, which no product does and which can make a small file swell.
    """
    if os.path.getsize(path) > _LARGEST:
        raise ValueError(f"more than {_LARGEST >> 20} MiB")
    found: list[_Band] = []
    channels: dict[str, tuple[int, ...]] = {}
    for attributes, keys, parent in _leaves(path):
        if _CENTRE in keys:
            number = attributes.get("number") or keys.get("bandnumber", "")
            found.append(_Band(int(number) if number.strip().isdecimal() else len(found) + 1, keys))
        if parent in _LISTS and "expectedchannelslist" in keys:
            items = re.findall(r"\d+", keys["expectedchannelslist"])
            channels[_LISTS[parent]] = tuple(map(int, items))
    return found, channels


def _leaves(path: str) -> list[tuple[dict[str, str], dict[str, str], str]]:
    """Attributes, texts of the children, and name of each element that is closed; names in lower case, unprefixed."""
    done: list[tuple[dict[str, str], dict[str, str], str]] = []
    stack: list[tuple[str, dict[str, str], dict[str, str], list[str]]] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        stack.append((tag.rpartition(":")[2].lower(), {k.lower(): v for k, v in attributes.items()}, {}, []))

    def end(_: str) -> None:
        name, attributes, children, texts = stack.pop()
        if stack:
            stack[-1][2].setdefault(name, "".join(texts).strip())
        if children:
            done.append((attributes, children, name))

    def text(data: str) -> None:
        if stack:
            stack[-1][3].append(data)

    def refuse(*_: object) -> None:
        raise ValueError("it declares entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.EntityDeclHandler = refuse
    with open(path, "rb") as file:
        parser.ParseFile(file)
    return done

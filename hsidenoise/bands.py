"""The spectral axis: wavelengths, widths, good-band flags and names, from and to the conventions files use."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

import numpy as np

from .errors import GuessedUnitsWarning, MetadataWarning

_UNITS = {
    "nm": "1", "nanometer": "1", "nanometers": "1", "nanometre": "1", "nanometres": "1",
    "um": "1000", "µm": "1000", "μm": "1000", "micrometer": "1000", "micrometers": "1000", "micrometre": "1000",
    "micrometres": "1000", "micron": "1000", "microns": "1000",
    "mm": "1e6", "millimeters": "1e6", "cm": "1e7", "centimeters": "1e7", "m": "1e9", "meters": "1e9",
    "angstrom": "0.1", "angstroms": "0.1",
}  # fmt: skip
_NOT_WAVELENGTHS = {"index", "ghz", "mhz", "hz"}
_SUFFIX = re.compile(
    r"\s*\(?\b(\d+(?:\.\d*)?(?:e[-+]?\d+)?)\s*(nm|nanometers?|[uµμ]m|micrometers?|microns?)\)?$", re.IGNORECASE
)

# Plausible wavelengths of optical and thermal imagers in nm: from 100 nm to 100 um.
_SHORTEST, _LONGEST = 100.0, 100_000.0
# Above this median spacing bands do not sample a continuous spectrum, so a gap between two of them means nothing.
_CONTIGUOUS = 30.0


#: Of each complex pixel, in this order.
PARTS = ("real", "imaginary")


def numbered(band: Mapping[str, object]) -> str:
    """A band as the file counts it, for people: ``3``, or of complex pixels ``3, real``; from an entry of a report."""
    return f"{band['band']}, {band['part']}" if band.get("part") else f"{band['band']}"


@dataclass(frozen=True)
class Bands:
    """What is known of each band, in file order.

    Parameters
    ----------
    count
        Number of bands.
    wavelength, fwhm
        Band centres and full widths at half maximum in nm; empty when unknown. NaN where one is unknown.
    good
        False where the file itself flags the band bad (ENVI ``bbl`` 0, ``bbl`` tags); empty means all good.
    names
        Names as the file stores them, without anything a library appended; empty when the file has none.
    roles
        ``"alpha"`` for a band that is no measurement but a mask; ``""`` otherwise; empty means none.
    detectors
        Which detector took each band, where the product says so; empty when it does not.
    """

    count: int
    wavelength: tuple[float, ...] = ()
    fwhm: tuple[float, ...] = ()
    good: tuple[bool, ...] = ()
    names: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    detectors: tuple[str, ...] = ()

    def usable(self) -> tuple[bool, ...]:
        """Which bands hold a measurement worth denoising: not flagged bad, not an alpha band."""
        good = self.good or (True,) * self.count
        roles = self.roles or ("",) * self.count
        return tuple(g and not r for g, r in zip(good, roles, strict=True))

    def select(self, indices: Sequence[int]) -> Bands:
        """The same for some bands only, zero-based, in the order asked for."""

        def pick(values: tuple[object, ...]) -> tuple[object, ...]:
            return tuple(values[i] for i in indices) if values else ()

        fields = ("wavelength", "fwhm", "good", "names", "roles", "detectors")
        return Bands(len(indices), **{f: pick(getattr(self, f)) for f in fields})  # type: ignore[arg-type]

    def groups(self) -> list[list[int]]:
        """Runs of neighbouring usable bands in wavelength order, for spectral windows.

        A run ends where two detectors meet, which the product says or which shows as wavelengths turning back in file
        order (their overlap), or as a gap wider than five times the median spacing and 25 nm (between detectors, or
        where the bad bands of a water-vapour window were left out): neighbours across either are not samples of one
        smooth spectrum and do not share their noise. One lost band inside a detector leaves a gap of two spacings and
        ends nothing.
        Scenes whose median spacing exceeds 30 nm are multispectral: gaps are normal there, and all bands form one
        run. Without wavelengths the file order stands in for them. Bands whose own wavelength is unknown, among
        others that have one, form the last run.

        Returns
        -------
        list of list of int
            Zero-based band indices; every usable band is in exactly one run.
        """
        usable = [i for i, ok in enumerate(self.usable()) if ok]
        if not self.wavelength:
            return _split(usable, [float(i) for i in usable], least=0.0)
        known = [i for i in usable if math.isfinite(self.wavelength[i])]
        unknown = [i for i in usable if not math.isfinite(self.wavelength[i])]
        runs: list[list[int]] = []
        parts = self.by_detector(known)
        for detector in parts if len(parts) > 1 else _detectors(known, self.wavelength):
            detector = sorted(detector, key=lambda i: self.wavelength[i])
            runs += _split(detector, [self.wavelength[i] for i in detector], least=25.0, multispectral=_CONTIGUOUS)
        runs.sort(key=lambda run: self.wavelength[run[0]])
        return [*runs, *([unknown] if unknown else [])]

    def by_detector(self, indices: Sequence[int]) -> list[list[int]]:
        """Bands apart by the detectors that the product names; all together where it names none."""
        if not self.detectors:
            return [list(indices)] if indices else []
        names = dict.fromkeys(self.detectors[i] for i in indices)
        return [[i for i in indices if self.detectors[i] == name] for name in names]


def _detectors(indices: list[int], wavelength: Sequence[float]) -> list[list[int]]:
    """Cut file order where the wavelength turns back; an order with many turns is no detector layout."""
    if len(indices) < 3:
        return [indices] if indices else []
    values = np.array([wavelength[i] for i in indices])
    steps = np.diff(values)
    if np.median(np.abs(steps)) > _CONTIGUOUS:
        return [indices]
    against = steps <= 0 if np.sum(steps > 0) >= np.sum(steps < 0) else steps >= 0
    cuts = np.flatnonzero(against) + 1
    if len(cuts) > 7 or np.any(np.diff([0, *cuts, len(indices)]) < 3):
        return [indices]
    return [list(part) for part in np.split(np.array(indices), cuts)]


def _split(indices: list[int], at: list[float], *, least: float, multispectral: float = math.inf) -> list[list[int]]:
    if len(indices) < 3:
        return [[int(i) for i in indices]] if indices else []
    steps = np.diff(at)
    spacing = float(np.median(steps))
    if spacing > multispectral:
        return [[int(i) for i in indices]]
    cuts = np.flatnonzero(steps > max(5 * spacing, least)) + 1
    return [[int(i) for i in part] for part in np.split(np.array(indices), cuts)]


def split_list(text: str) -> list[str]:
    """The items of an ENVI list ``{a, b}``, of ``a,b`` without braces, or of a single value."""
    inner = text.strip().removeprefix("{").removesuffix("}").strip()
    items = [item.strip() for item in inner.split(",")]
    if items and not items[-1]:
        items.pop()
    return items


def _decimal(text: str) -> Decimal | None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _lengths(texts: Sequence[str], widths: Sequence[str], unit: str, name: str) -> tuple[list[float], list[float]]:
    """Wavelengths and widths in nm; decimal arithmetic, so that 0.4268 um is 426.8 nm and not 426.79999999999995."""
    values = [_decimal(t) for t in texts]
    known = sorted(v for v in values if v is not None and v > 0)
    if not known:
        if any(t for t in texts):
            warnings.warn(f"{name}: no wavelength is a positive number; ignored", MetadataWarning, stacklevel=4)
        return [], []
    if any(v is None and t.strip().lower() not in ("", "nan") for v, t in zip(values, texts, strict=True)):
        warnings.warn(f"{name}: some wavelengths are no numbers; left out", MetadataWarning, stacklevel=4)
    median = float(known[len(known) // 2])
    unit = unit.strip().strip("{}").strip()
    word = unit.lower()
    if word in _NOT_WAVELENGTHS:
        return [], []
    if word in ("wavenumber", "wavenumbers", "cm-1", "1/cm"):
        return [float(Decimal(10**7) / v) if v is not None and v > 0 else math.nan for v in values], []
    factor = Decimal(_UNITS[word]) if word in _UNITS else None
    if factor is None or not _SHORTEST <= median * float(factor) <= _LONGEST:
        guess = "um" if median < 100 else "nm"
        if not _SHORTEST <= median * float(_UNITS[guess]) <= _LONGEST:
            warnings.warn(f"{name}: wavelengths around {median:g} fit no unit; ignored", MetadataWarning, stacklevel=4)
            return [], []
        said = f"wavelength unit {unit!r} does not fit values" if unit else "wavelengths without a unit,"
        warnings.warn(f"{name}: {said} around {median:g}; taken as {guess}", GuessedUnitsWarning, stacklevel=4)
        factor = Decimal(_UNITS[guess])

    def nm(value: Decimal | None) -> float:
        return float(value * factor) if value is not None and value > 0 else math.nan

    return [nm(v) for v in values], [nm(_decimal(t)) for t in widths]


def _fit(key: str, items: list[str], count: int, name: str) -> list[str]:
    if items and len(items) != count:
        warnings.warn(
            f"{name}: {len(items)} {key} for {count} bands; not used, but carried over as text",
            MetadataWarning,
            stacklevel=4,
        )
        return []
    return items


def _build(
    count: int, name: str, wavelength: list[str], unit: str, fwhm: list[str], bbl: list[str], names: Sequence[str]
) -> Bands:
    centres, widths = _lengths(wavelength, fwhm, unit, name)
    flags = [_decimal(t) for t in bbl]
    return Bands(
        count,
        tuple(centres),
        tuple(widths) if any(math.isfinite(w) for w in widths) else (),
        tuple(f is None or f != 0 for f in flags),
        tuple(names),
    )


def from_envi(keys: Mapping[str, str], count: int, name: str) -> Bands:
    """Bands from ENVI header keys (lower case, words separated by blanks), values as the header's text.

    Raises
    ------
    MetadataWarning, GuessedUnitsWarning
        As warnings: a list of the wrong length, or a missing or impossible unit.
    """
    lists = {
        key: _fit(label, split_list(keys[key]) if keys.get(key) else [], count, name)
        for key, label in (
            ("wavelength", "wavelengths"), ("fwhm", "fwhm"), ("bbl", "bbl flags"), ("band names", "band names")
        )
    }  # fmt: skip
    unit = keys.get("wavelength units", "")
    return _build(count, name, lists["wavelength"], unit, lists["fwhm"], lists["bbl"], lists["band names"])


def from_gtiff(
    tags: Mapping[str, Mapping[str, str]],
    band_tags: Sequence[Mapping[str, Mapping[str, str]]],
    descriptions: Sequence[str | None],
    name: str,
) -> Bands:
    """Bands from the tags of a GDAL dataset, in the order of the conventions met in the wild.

    Band ``IMAGERY`` (um), band ``wavelength``, band ``ENVI`` domain, dataset ``ENVI`` domain, dataset default domain,
    then descriptions such as ``band 1 (418.24 Nanometers)``. Where ``IMAGERY`` is only the band tag rounded to
    three decimals, as GDAL 3.10 derives it from ENVI headers, the band tag is the better number and is taken.
    """
    count = len(band_tags)
    names = [_SUFFIX.sub("", d).strip() if d else "" for d in descriptions]
    names = names if any(names) else []

    def column(domain: str, *keys: str) -> list[str]:
        found = [next((t[domain][k] for k in keys if k in t.get(domain, {})), "") for t in band_tags]
        return found if any(found) else []

    def per_band(domain: str) -> tuple[list[str], str, list[str]]:
        unit = next(iter(filter(None, column(domain, "wavelength_units", "wavelength units"))), "")
        return column(domain, "wavelength"), unit, column(domain, "fwhm")

    imagery = (column("IMAGERY", "CENTRAL_WAVELENGTH_UM"), "um", column("IMAGERY", "FWHM_UM"))
    plain = per_band("")
    chosen = plain if plain[0] and _rounded(imagery[0], plain[0], plain[1]) else imagery
    if not chosen[0]:
        chosen = plain if plain[0] else per_band("ENVI")
    bbl = column("", "bbl") or column("ENVI", "bbl")
    for domain in ("ENVI", ""):
        flat = {k.replace("_", " "): v for k, v in tags.get(domain, {}).items()}
        if not chosen[0] and flat.get("wavelength"):
            items = _fit("wavelengths", split_list(flat["wavelength"]), count, name)
            fwhm = _fit("fwhm", split_list(flat["fwhm"]) if flat.get("fwhm") else [], count, name)
            chosen = (items, flat.get("wavelength units", ""), fwhm)
        if not bbl and flat.get("bbl"):
            bbl = _fit("bbl flags", split_list(flat["bbl"]), count, name)
    if not chosen[0]:
        hits = [_SUFFIX.search(d) if d else None for d in descriptions]
        if hits and all(hits) and len({h[2].lower() for h in hits if h}) == 1:
            chosen = ([h[1] for h in hits if h], next(h[2] for h in hits if h), [])
    detectors = column("", "detector")
    found = _build(count, name, *chosen, bbl, names)
    return replace(found, detectors=tuple(detectors)) if all(detectors) else found


def _rounded(imagery: list[str], plain: list[str], unit: str) -> bool:
    """Whether `imagery` (um) says nothing that `plain` does not say with more digits."""
    factor = _UNITS.get(unit.lower())
    if not imagery or factor is None:
        return False
    pairs = [(_decimal(a), _decimal(b)) for a, b in zip(imagery, plain, strict=True)]
    limit = Decimal("0.00051")
    return all(a is not None and b is not None and abs(a - b * Decimal(factor) / 1000) <= limit for a, b in pairs)


def to_gtiff(bands: Bands) -> list[dict[str, dict[str, str]]]:
    """Tags by domain for each band, in both conventions that QGIS, EnMAP-Box and GDAL read."""
    out: list[dict[str, dict[str, str]]] = []
    for i in range(bands.count):
        imagery: dict[str, str] = {}
        plain: dict[str, str] = {}
        if bands.wavelength and math.isfinite(bands.wavelength[i]):
            imagery["CENTRAL_WAVELENGTH_UM"] = _micrometres(bands.wavelength[i])
            plain |= {"wavelength": repr(bands.wavelength[i]), "wavelength_units": "Nanometers"}
        if bands.fwhm and math.isfinite(bands.fwhm[i]):
            imagery["FWHM_UM"] = _micrometres(bands.fwhm[i])
            plain["fwhm"] = repr(bands.fwhm[i])
        if bands.good:
            plain["bbl"] = str(int(bands.good[i]))
        if bands.detectors:
            plain["detector"] = bands.detectors[i]
        out.append({k: v for k, v in (("IMAGERY", imagery), ("", plain)) if v})
    return out


def _micrometres(nm: float) -> str:
    """All digits, and at least the six decimals (1 pm) that readers of this tag count on."""
    value = Decimal(repr(nm)) / 1000
    return f"{value:f}" if -int(value.as_tuple().exponent) >= 6 else f"{value:.6f}"


def to_envi(bands: Bands) -> dict[str, str]:
    """ENVI header keys with their values as header text; only what is known."""
    keys: dict[str, str] = {}
    if bands.names:
        keys["band names"] = "{" + ", ".join(_plain(n) or f"Band {i}" for i, n in enumerate(bands.names, 1)) + "}"
    if bands.wavelength:
        keys["wavelength units"] = "Nanometers"
        keys["wavelength"] = "{" + ", ".join(_number(w) for w in bands.wavelength) + "}"
    if bands.fwhm:
        keys["fwhm"] = "{" + ", ".join(_number(w) for w in bands.fwhm) + "}"
    if bands.good:
        keys["bbl"] = "{" + ", ".join(str(int(g)) for g in bands.good) + "}"
    return keys


def _number(value: float) -> str:
    """ENVI lists have no word for an unknown wavelength; 0 is what products with dead bands write."""
    return f"{Decimal(repr(value)):f}" if math.isfinite(value) else "0"


def _plain(name: str) -> str:
    """A name without the characters that end or split an ENVI list."""
    return name.replace(",", ";").replace("{", "(").replace("}", ")").replace("\n", " ").strip()

"""Plain words for a report's numbers: what was checked, and what to make of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .bands import numbered
from .cube import Cube
from .measure import Measured

FEW, MANY = 0.05, 0.2  # shares of the denoised bands in which structure was removed: to be mentioned, to be mistrusted


def checks(before: Cube, after: Cube, found: Measured, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What should have survived and whether it did: ``name``, ``ok`` (None: changed on request) and ``detail``."""
    asked = run.get("options") or {}
    table: list[tuple[str, bool | None, str]] = []
    stored = [_as_stored(cube) for cube in (before, after)]
    same = stored[0] == stored[1]
    dtype = stored[0] if same else f"{stored[0]} before, {stored[1]} after"
    table.append(("Data type kept", None if not same and asked.get("dtype") else same, dtype))
    values = [[_text(v) for v in cube.layout.get("complex", cube).nodata] for cube in (before, after)]
    same, nodata = values[0] == values[1], ", ".join(sorted(set(values[0])))
    table.append(("No-data value kept", None if not same and asked.get("nodata") else same, nodata))
    table.append(("Georeferencing kept", _same_geo(before, after), _geo_words(before)))
    table.append(("Wavelengths and bad-band flags kept", _same_bands(before, after), _band_words(before)))
    counts = [("No measurement was lost", found.newly_invalid, "became invalid")]
    if found.comparable:
        counts.insert(0, ("Samples without data are identical", found.invalid_changed, "differ"))
        counts.insert(0, ("Bands passed through are identical", found.passed_changed, "differ"))
    table += [(name, n == 0, f"{n} samples {words}" if n else "every sample") for name, n, words in counts]
    return [{"name": name, "ok": ok, "detail": detail} for name, ok, detail in table]


def _as_stored(cube: Cube) -> str:
    cube = cube.layout.get("complex", cube)
    return str(cube.layout.get("stored", cube.dtype))


def judge(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """``level`` (good, check or fault), ``text`` (one sentence) and ``reasons`` (each a sentence, gravest first)."""
    summary, bands = numbers["summary"], numbers["bands"]
    faults, doubts = _defects(numbers)
    n = summary["denoised"]
    if n == 0 or numbers["valid_fraction"] == 0:
        why = "no band was denoised" if n == 0 else "the scene holds no valid pixel"
        text = f"Nothing was denoised: {why}."
        return {"level": "fault" if faults else "check", "text": text, "reasons": faults + doubts}
    if not any(band["removed_rms"] > 0 for band in bands if band["status"] == "denoised"):
        return {"level": "fault" if faults else "check", "text": "Nothing was removed: output and input are equal.",
                "reasons": faults}  # fmt: skip
    text, noun = _headline(numbers), _noun(bands)
    passed = summary["passed"]
    if passed:
        text += f"; {passed} {_plural(noun, passed)} {'was' if passed == 1 else 'were'} left untouched"
    hit = summary["structure_found"]
    known = [band for band in bands if band["status"] == "denoised" and math.isfinite(band["structure_share"])]
    if not known:
        text += "; whether image structure was removed could not be measured"
    elif hit == 0:
        text += "; no image structure was found in what was removed"
    elif hit <= FEW * n:
        text += f"; traces of image structure were found in what was removed from {hit} {_plural(noun, hit)}"
    level = "fault" if faults else "check" if doubts else "good"
    return {"level": level, "text": text + ".", "reasons": faults + doubts}


def _headline(numbers: Mapping[str, Any]) -> str:
    summary, quality = numbers["summary"], numbers["quality"]
    n, hit, times = summary["denoised"], summary["structure_found"], summary["median_removed_over_noise"]
    noun = _noun(numbers["bands"])
    where = f"in {n} {_plural(noun, n)}"
    if hit > FEW * n:
        strength = f"; what was removed is {times:.2f} times as strong as the estimated noise" if times > 0 else ""
        return f"Image structure was removed together with the noise in {hit} of {n} {_plural(noun, n)}{strength}"
    if quality and math.isfinite(quality["after"]["psnr"]):
        a, b = quality["before"]["psnr"], quality["after"]["psnr"]
        verb = "rose" if b > a else "fell"
        return f"Against the reference, PSNR {verb} from {a:.2f} to {b:.2f} dB with noise removed {where}"
    before, after = summary["median_snr_before"], summary["median_snr_after_fine"]
    if math.isfinite(before) and after > before + 0.5:
        ratio = f"the median signal-to-noise ratio rose from {before:.1f} dB to at least {after:.1f} dB"
        return f"Noise fell: {ratio} {where}"
    if math.isfinite(before):
        return (
            f"What was removed {where} is {times:.2f} times as strong as their estimated noise "
            f"(median signal-to-noise ratio {before:.1f} dB before)"
        )
    if math.isfinite(summary["median_removed_rms"]):
        return f"A median of {summary['median_removed_rms']:.3g} (rms) was removed {where}"
    return f"Noise was removed {where}"


def _defects(numbers: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    summary, bands = numbers["summary"], numbers["bands"]
    faults: list[str] = []
    doubts: list[str] = []
    active = [band for band in bands if band["status"] == "denoised"]
    hit = [band for band in active if band["structure_found"]]
    if hit and len(hit) > FEW * len(active):
        worst = max(hit, key=lambda band: band["detail_loss"])
        lost = f"{100 * worst['detail_loss']:.0f} % of its detail energy"
        text = f"Edges or texture went with the noise; the worst is band {numbered(worst)}, which lost {lost}."
        (faults if len(hit) > MANY * len(active) else doubts).append(text)
    quality = numbers["quality"]
    if quality and quality["after"]["psnr"] < quality["before"]["psnr"]:
        faults.append("The result is farther from the reference than the input was.")
    for check in numbers["checks"]:
        if check["ok"] is False:
            grave = check["name"].startswith(("Bands", "Samples", "No measurement"))
            (faults if grave else doubts).append(f"{check['name']}: no ({check['detail']}).")
    missed, tiles = numbers["convergence"]["not_converged"], numbers["convergence"]["tiles"]
    if missed:
        doubts.append(
            f"{missed} of {tiles} {_plural('tile', tiles)} stopped at the evaluation limit before converging; "
            "the best iterate was kept."
        )
    shifted = [numbered(band) for band in active if _shifted(band)]
    if shifted:
        doubts.append(f"The mean level moved by more than 1 % in {_bands(shifted)}.")
    times = summary["median_removed_over_noise"]
    if len(active) < 3:  # the estimate needs other bands to tell noise from texture
        return faults, doubts
    if times > 1.5:
        doubts.append(f"More was removed than random noise: {times:.2f} times the estimate in the median band.")
    elif times < 0.5:
        doubts.append(f"Little was removed: {times:.2f} times the estimated noise in the median band.")
    return faults, doubts


def _shifted(band: Mapping[str, Any]) -> bool:
    shift, spread = abs(band["removed_mean"]), band["sigma_before"]
    spread = spread if math.isfinite(spread) else band["removed_rms"]
    chance = 5 * band["removed_rms"] / math.sqrt(max(band["valid"], 1))
    return bool(shift > max(0.01 * abs(band["mean_before"]), 0.2 * spread, chance) > 0)


def _bands(numbers: Sequence[str]) -> str:
    shown = ("; " if "," in numbers[0] else ", ").join(numbers[:8])
    rest = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"{_plural('band', len(numbers))} {shown}{rest}"


def _noun(bands: Sequence[Mapping[str, Any]]) -> str:
    """What is counted: of complex bands the real and the imaginary part."""
    return "band part" if bands[0].get("part") else "band"


def _plural(word: str, n: int) -> str:
    return word if n == 1 else word + "s"


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _same_geo(before: Cube, after: Cube) -> bool:
    a, b = before.geo, after.geo
    transform = (a.transform is None) == (b.transform is None)
    if a.transform is not None and b.transform is not None:
        transform = bool(np.allclose(a.transform, b.transform, rtol=1e-9, atol=1e-9))
    # Formats spell one CRS differently: its presence is compared, not its text.
    same = transform and (a.crs is None) == (b.crs is None)
    return same and len(a.gcps) == len(b.gcps) and (a.rpcs is None) == (b.rpcs is None)


def _geo_words(cube: Cube) -> str:
    geo = cube.geo
    parts = [(geo.crs is not None, "CRS"), (geo.transform is not None, "grid"),
             (bool(geo.gcps), f"{len(geo.gcps)} control points"), (geo.rpcs is not None, "RPCs")]  # fmt: skip
    return ", ".join(words for there, words in parts if there) or "the input has none"


def _same_bands(before: Cube, after: Cube) -> bool:
    a, b = before.bands, after.bands
    good = (tuple(a.good) or (True,) * a.count) == (tuple(b.good) or (True,) * b.count)
    for x, y in ((a.wavelength, b.wavelength), (a.fwhm, b.fwhm)):
        if len(x) != len(y) or not np.allclose(x, y, rtol=1e-6, equal_nan=True):
            return False
    return good


def _band_words(cube: Cube) -> str:
    known = np.array(cube.bands.wavelength, float)
    known = known[np.isfinite(known)]
    if known.size == 0:
        return "the input has no wavelengths"
    return f"{known.min():.0f} to {known.max():.0f} nm"

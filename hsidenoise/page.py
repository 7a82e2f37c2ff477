"""The report's page: figures and words set into the template."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from itertools import groupby
from typing import Any

from . import figures
from .bands import numbered
from .pictures import Pixels, Plate
from .verdict import FEW

Band = dict[str, Any]

LEVELS = {"good": "Good", "check": "Look closer", "fault": "Problem found"}


def draw_charts(numbers: Mapping[str, Any]) -> dict[str, str]:
    """The charts of a report as ``data:`` URIs; empty where there is nothing to draw."""
    bands, unit, scene = numbers["bands"], numbers["unit"], numbers["scene"]
    return {
        "noise": figures.noise(bands, unit),
        "profiles": figures.profiles(numbers["profiles"], unit),
        "spectra": figures.spectra(bands, numbers["spectra"], unit),
        "fidelity": figures.fidelity(bands) if numbers["quality"] else "",
        "structure": figures.structure(bands),
        "convergence": figures.convergence(numbers["run"].get("tiles") or [], (scene["rows"], scene["columns"])),
    }


def render(
    numbers: Mapping[str, Any], charts: Mapping[str, str], plates: Sequence[Plate], encode: Callable[[Pixels], str]
) -> str:
    """The page for a report's numbers, charts and pictures; `encode` turns pixels into a ``data:`` URI."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["num"] = number
    environment.filters["numbered"] = numbered
    template = resources.files(__package__).joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        n=numbers,
        title=re.split(r"[\\/]", numbers["scene"]["name"])[-1] or numbers["scene"]["name"],
        run=numbers["run"],
        level=LEVELS[numbers["verdict"]["level"]],
        keys=_key_figures(numbers),
        plates=[_encoded(plate, encode) for plate in plates],
        charts=charts,
        passed=_passed(numbers["bands"]),
        mended=[band for band in numbers["bands"] if band["lost_share"] or band["striped_columns"]],
        provenance=_provenance(numbers),
    )


def _encoded(plate: Plate, encode: Callable[[Pixels], str]) -> dict[str, Any]:
    panels = [{"label": p.label, "uri": encode(p.pixels), "shape": p.pixels.shape} for p in plate.panels]
    return {"title": plate.title, "caption": plate.caption, "stacked": plate.stacked, "panels": panels}


def number(value: Any, digits: int = 3) -> str:
    """A number with so many significant digits, or a dash."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "–" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    text = f"{value:.{digits}g}"
    if "e" in text and 1e-4 <= abs(value) < 1e7:
        text = f"{float(text):.0f}"
    return text.replace("-", "\u2212")


def _key_figures(numbers: Mapping[str, Any]) -> list[dict[str, str]]:
    """The few numbers at the top: what, value, and how to read it."""
    s, quality, c = numbers["summary"], numbers["quality"], numbers["convergence"]
    keys = []

    def change(a: float | None, b: float | None, form: str) -> str:
        return " → ".join("–" if v is None else format(v, form) for v in (a, b))

    if quality:
        p, q = quality["before"], quality["after"]
        keys.append(("PSNR", change(p["psnr"], q["psnr"], ".2f") + " dB", "against the reference, mean over bands"))
        keys.append(("SSIM", change(p["ssim"], q["ssim"], ".4f"), "1 is identical"))
        keys.append(
            ("Spectral angle", change(p["sam"], q["sam"], ".3f") + " rad", "to the reference, mean over pixels")
        )
    before, after, times = (s[f"median_{key}"] for key in ("snr_before", "snr_after_fine", "removed_over_noise"))
    if None not in (before, after) and after > before and s["structure_found"] <= FEW * s["denoised"]:
        keys.append(("Signal to noise", f"{before:.1f} → ≥ {after:.1f} dB", "median band, estimated"))
    if times is not None:
        keys.append(("Removed, over noise", f"{times:.2f}", "1: as much went as there was noise"))
    if any(band["structure_share"] is not None for band in numbers["bands"]):
        keys.append(("Bands losing detail", f"{s['structure_found']} of {s['denoised']}", "image in what was removed"))
    if c["tiles"]:
        keys.append(("Tiles converged", f"{c['tiles'] - c['not_converged']} of {c['tiles']}",
                     f"median {number(c['median_iterations'])} evaluations"))  # fmt: skip
    return [dict(zip(("name", "value", "note"), key, strict=True)) for key in keys]


def _passed(bands: Sequence[Band]) -> list[dict[str, str]]:
    """Bands that passed through, by reason, as ranges."""
    untouched = [band | {"at": b} for b, band in enumerate(bands) if band["status"] != "denoised"]
    table = []
    kinds: dict[str, list[Band]] = {}
    for band in untouched:  # reasons that differ in their numbers only share a line
        kinds.setdefault(re.sub(r"\d[\d.]*", "#", band["reason"]), []).append(band)
    for members in kinds.values():
        reason, runs = members[0]["reason"], []
        if len({band["reason"] for band in members}) > 1:
            reason += f", band {numbered(members[0])}; the others alike"
        for _, part in groupby(enumerate(members), key=lambda item: item[1]["at"] - item[0]):
            run = [band for _, band in part]
            ends = [numbered(run[0]), numbered(run[-1])]
            if run[0].get("part") == "real" and run[-1].get("part") == "imaginary":
                ends = [str(run[0]["band"]), str(run[-1]["band"])]
            text = f"{ends[0]}" if ends[0] == ends[1] else f"{ends[0]}–{ends[1]}"
            waves = [run[0]["wavelength"], run[-1]["wavelength"]]
            if None not in waves:
                text += f" ({waves[0]:.0f} nm)" if ends[0] == ends[1] else f" ({waves[0]:.0f}–{waves[1]:.0f} nm)"
            runs.append(text)
        table.append({"reason": reason, "count": str(len(members)), "bands": ", ".join(runs)})
    return table


def _provenance(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Groups of name and value, flattened from the run's record."""
    run, scene, output = numbers["run"], numbers["scene"], numbers["output"]
    files = [("Input", scene["name"]), ("Input format", f"{scene['format']}, {scene['dtype']}"),
             ("Output", output["name"]), ("Output format", f"{output['format']}, {output['dtype']}")]  # fmt: skip
    if numbers["reference"]:
        files.append(("Reference", numbers["reference"]["name"]))
    files += [("hsidenoise", numbers["hsidenoise"])]
    for key, words in (("started", "Started"), ("seconds", "Seconds"), ("device", "Device")):
        if run.get(key) is not None:
            files.append((words, number(run[key], 4)))
    groups = [{"title": "Run", "rows": files}]
    titles = {"model": "Weights", "options": "Options", "normalisation": "Normalisation", "versions": "Versions"}
    for key, title in titles.items():
        if rows := _flat(run.get(key)):
            groups.append({"title": title, "rows": rows})
    return groups


def _flat(record: Any, prefix: str = "") -> list[tuple[str, str]]:
    if not isinstance(record, Mapping):
        return [] if record is None else [(prefix or "value", _short(record))]
    rows = []
    for key, value in record.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        rows += _flat(value, name) if isinstance(value, Mapping) else [(name, _short(value))]
    return rows


def _short(value: Any) -> str:
    if isinstance(value, float):
        return number(value, 6)
    if isinstance(value, list):
        shown = ", ".join(f"[{_short(v)}]" if isinstance(v, list) else _short(v) for v in value[:8])
        return shown + (f", … ({len(value)} values; all in the JSON)" if len(value) > 8 else "") if value else "none"
    text = "–" if value is None or value == "" else str(value)
    return text if len(text) <= 400 else text[:400] + " … (whole in the JSON)"

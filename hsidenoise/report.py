"""The report: what denoising did to a scene, measured on the written file, for people (HTML) and machines (JSON)."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import __version__, pictures
from .bands import PARTS, numbered
from .cube import Cube
from .errors import OutputExistsError, UsageError, WriteError
from .measure import Measured, measure
from .metrics import stripes
from .verdict import checks, judge

Floats = NDArray[np.float64]

#: Share of a band's samples that were lost and predicted, beyond which lost detail is not looked for.
MANY_LOST = 0.01
SCHEMA = "hsidenoise-report/1"
SIZE_LIMIT = 1_900_000  # bytes of HTML; pictures give way
PROFILE_POINTS = 1000
SPECTRA = 4
QUALITIES = ((85, 1), (70, 1), (60, 2), (40, 4))  # JPEG quality and thinning, tried in turn until the page is small


@dataclass(frozen=True)
class Report:
    """What `collect` found.

    Parameters
    ----------
    numbers
        Everything measured, ready for JSON.
    plates
        Pictures of the scene.
    """

    numbers: dict[str, Any]
    plates: tuple[pictures.Plate, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """The numbers, with null where one is not known."""
        return self.numbers

    def write_json(self, path: str | Path) -> None:
        """Write the numbers.

        Raises
        ------
        WriteError
            The file cannot be written; nothing is left under its name.
        """
        _write(Path(path), json.dumps(self.numbers, indent=1, allow_nan=False, ensure_ascii=False) + "\n")

    def write_html(self, path: str | Path) -> None:
        """Write one self-contained page, under 2 MB.

        Raises
        ------
        WriteError
            The file cannot be written; nothing is left under its name.
        """
        _write(Path(path), self.to_html())

    def write(self, path: str | Path) -> None:
        """Write the page to `path` and the numbers beside it, with the suffix ``.json``."""
        self.write_html(path)
        self.write_json(Path(path).with_suffix(".json"))

    def to_html(self) -> str:
        """The page as text."""
        from .page import draw_charts, render

        charts = draw_charts(self.numbers)
        for quality, step in QUALITIES:
            html = render(self.numbers, charts, self.plates, lambda p: pictures.encode(p[::step, ::step], quality))  # noqa: B023
            if len(html.encode()) < SIZE_LIMIT:
                return html
        return render(self.numbers, charts, (), lambda p: "")


def collect(before: Cube, after: Cube, *, reference: Cube | None = None, run: Mapping[str, Any]) -> Report:
    """Measure the written output against its input.

    Pixels are streamed in row blocks: memory does not grow with the height of the scene, except for one mean per band
    and row.

    Parameters
    ----------
    before, after
        The input and the output, opened.
    reference
        A cleaner scene on the same grid.
    run
        How the output was made: ``options``, ``model``, ``device``, ``seconds``, ``tiles``, ``normalisation``,
        ``bands_denoised`` (zero-based), ``bands_passed`` (reason by zero-based index), ``sigma_before`` (per band, raw
        units), ``versions``, ``started``, ``limits`` (least and greatest measurement of each band, or
        None). Each may be missing.

    Raises
    ------
    UsageError
        The scenes are not of one shape.
    ReadError
        A scene cannot be read to its end.
    """
    for other in (after, reference):
        if other is not None and other.shape != before.shape:
            raise UsageError(
                f"{other.name}: {_by(other.shape)} bands, rows and columns, but {before.name} has {_by(before.shape)}; "
                "both must show the same grid"
            )
    n = before.shape[0]
    reasons = {int(b): str(why) for b, why in dict(run.get("bands_passed") or {}).items() if 0 <= int(b) < n}
    denoised = [int(b) for b in run["bands_denoised"]] if run.get("bands_denoised") is not None else None
    if denoised is None:
        denoised = [b for b in range(n) if b not in reasons]
    sigma = np.array([np.nan if s is None else s for s in run.get("sigma_before") or ()], float)
    known = len(sigma) == n and bool(np.isfinite(sigma[denoised]).all())
    found = measure(before, after, reference, denoised, noise_before=not known, limits=_limits(run))
    if not known:
        sigma = found.noise["before"].sigma()
    numbers: dict[str, Any] = {
        "schema": SCHEMA,
        "hsidenoise": __version__,
        "scene": _describe(before),
        "output": _describe(after),
        "reference": _describe(reference) if reference else None,
        "unit": "digital number" if np.dtype(before.dtype).kind in "iu" else "the file's unit",
        "valid_fraction": float(found.valid().sum()) / max(1, math.prod(before.shape)),
        "bands": _bands(before, found, denoised, reasons, sigma, _mended(run, n)),
        "quality": _quality(found),
        "sam_to_input": found.to_input.sam() if n > 1 else None,
        "structure_every": found.structure_step,
        "convergence": _convergence(run.get("tiles") or []),
        "checks": checks(before, after, found, run),
        "run": dict(run),
    }
    numbers["summary"] = _summary(numbers["bands"])
    numbers["spectra"] = _spectra(found, denoised)
    worst, median = _show_bands(numbers["bands"])
    numbers["profiles"] = [_profile(numbers["bands"][b], b, found, words) for b, words in _named(worst, median)]
    numbers["verdict"] = judge(numbers)
    cubes = {"before": before, "after": after} | ({"reference": reference} if reference else {})
    plates = _plates(cubes, found, numbers["bands"], denoised, worst, median)
    return Report(_clean(numbers), plates)


def _limits(run: Mapping[str, Any]) -> Floats | None:
    """Least and greatest measurement of each band, (2, bands), as the record of a run has them."""
    pairs = run.get("limits")
    return np.array([(-np.inf, np.inf) if p is None else p for p in pairs], float).T if pairs else None


def check_report(path: str | Path, *, overwrite: bool = False) -> None:
    """Refuse a report that could not be written, before any work is done.

    Raises
    ------
    UsageError
        The name ends in .json, which the report's numbers need, or its folder does not exist.
    OutputExistsError
        The page or its numbers exist and `overwrite` is false.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        raise UsageError(f"{path}: the report's page needs another suffix than .json; choose --report NAME.html")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist; create it or choose another --report")
    for target in (path, path.with_suffix(".json")):
        if target.is_dir() or (target.exists() and not overwrite):
            raise OutputExistsError(f"{target}: exists and won't be overwritten without --overwrite")


def _mended(run: Mapping[str, Any], bands: int) -> dict[str, Floats]:
    """Share of samples that were lost and predicted, and striped columns, of each band."""
    found = ((run.get("normalisation") or {}).get("defects") or {}).get("bands") or {}
    return {
        key: np.array([float((found.get(str(b)) or {}).get(key, 0)) for b in range(bands)])
        for key in ("lost_share", "striped_columns")
    }


def _bands(
    cube: Cube, found: Measured, denoised: Sequence[int], reasons: Mapping[int, str], sigma: Floats,
    mended: Mapping[str, Floats],
) -> list[dict[str, Any]]:  # fmt: skip
    n = cube.shape[0]
    info, chosen = cube.bands, set(denoised)
    after = found.noise["after"].sigma()
    mean = {name: found.mean(name) for name in ("before", "after")}
    columns = {name: np.stack([p.mean(b) for b in range(n)]) for name, p in found.cols.items()}
    counts = found.cols["before"].count
    many_lost = mended["lost_share"] > MANY_LOST
    table: dict[str, Any] = {
        "valid": found.valid(),
        **mended,
        "mean_before": mean["before"],
        "mean_after": mean["after"],
        "sigma_before": sigma,
        "sigma_after": after,
        "sigma_after_fine": np.maximum(found.fine.sigma(), after),
        "snr_before": _snr(mean["after"], sigma),
        "snr_after": _snr(mean["after"], after),
        "snr_after_fine": _snr(mean["after"], np.maximum(found.fine.sigma(), after)),
        "removed_rms": found.removed_rms(),
        "removed_mean": mean["before"] - mean["after"],
        # Where samples were lost, what was removed is the defect minus the image: of course it holds image.
        "structure_share": np.where(many_lost, np.nan, found.structure.share_bands()),
        "detail_loss": np.where(many_lost, np.nan, found.structure.loss_bands()),
        "structure_found": found.structure.found_bands() & ~many_lost,
        "removed_autocorrelation": found.structure.autocorrelation_bands(),
        "stripes_before": stripes(columns["before"], counts, sigma),
        "stripes_after": stripes(columns["after"], counts, sigma),
        "stripes_removed": stripes(columns["before"] - columns["after"], counts, sigma),
    }
    for name, pair in found.pairs.items():
        low, high = found.scale or (0.0, 1.0)
        table[f"psnr_{name}"] = pair.psnr_bands(high - low)
        table[f"ssim_{name}"] = found.ssim[name].bands()
    return [
        {
            **_number(b, "complex" in cube.layout),
            "name": info.names[b] if b < len(info.names) else None,
            "wavelength": info.wavelength[b] if b < len(info.wavelength) else None,
            "good": info.good[b] if b < len(info.good) else True,
            "status": "denoised" if b in chosen else "passed",
            "reason": None if b in chosen else reasons.get(b, "not selected"),
            **{key: values[b].item() for key, values in table.items()},
        }
        for b in range(n)
    ]


def _number(b: int, is_complex: bool) -> dict[str, Any]:
    """The number a band has in the file; of a complex one also which part it is."""
    return {"band": b // 2 + 1, "part": PARTS[b % 2]} if is_complex else {"band": b + 1}


def _snr(mean: Floats, sigma: Floats) -> Floats:
    usable = (mean > 0) & (sigma > 0)
    snr: Floats = 20 * np.log10(np.divide(mean, sigma, out=np.full(mean.shape, np.nan), where=usable))
    return snr


def _summary(bands: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    active = [band for band in bands if band["status"] == "denoised"]
    keys = [f"{kind}_{when}" for kind in ("sigma", "snr") for when in ("before", "after", "after_fine")] + [
        "removed_rms"
    ]
    summary: dict[str, Any] = {f"median_{key}": _median([band[key] for band in active]) for key in keys}
    ratios = [band["removed_rms"] / band["sigma_before"] for band in active if band["sigma_before"] > 0]
    summary["median_removed_over_noise"] = _median(ratios)
    summary |= {"denoised": len(active), "passed": len(bands) - len(active)}
    summary["structure_found"] = sum(band["structure_found"] for band in active)
    return summary


def _quality(found: Measured) -> dict[str, Any] | None:
    if not found.pairs or found.scale is None:
        return None
    low, high = found.scale
    quality: dict[str, Any] = {"black": low, "white": high}
    for name, pair in found.pairs.items():
        ssim = found.ssim[name].bands()[found.judged]
        quality[name] = {
            "psnr": pair.psnr(high - low),
            "ssim": float(ssim[np.isfinite(ssim)].mean()) if np.isfinite(ssim).any() else math.nan,
            "sam": pair.sam(),
            "ergas": pair.ergas(),
        }
    return quality


def _convergence(tiles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    tiles = [t for t in tiles if t.get("iterations") != 0]  # 0: nothing valid in it, the network was not run
    counts = [t["iterations"] for t in tiles if t.get("iterations") is not None]
    return {
        "tiles": len(tiles),
        "not_converged": sum(t.get("converged") is False for t in tiles),
        "median_iterations": _median(counts),
        "worst_residual": max((t["residual"] for t in tiles if t.get("residual") is not None), default=math.nan),
    }


def _show_bands(bands: Sequence[Mapping[str, Any]]) -> tuple[int | None, int | None]:
    """The denoised band with the largest relative noise before, and the median one."""
    active = [b for b, band in enumerate(bands) if band["status"] == "denoised" and band["valid"] > 0]
    if not active:
        return None, None
    snr = [band["snr_before"] for band in bands]
    ranked = sorted(active, key=lambda b: -math.inf if math.isnan(snr[b]) else -snr[b])
    worst, median = ranked[-1], ranked[len(ranked) // 2]
    return worst, median if median != worst else None


def _named(worst: int | None, median: int | None) -> list[tuple[int, str]]:
    named = ((worst, "noisiest band"), (median, "median band"))
    return [(b, words) for b, words in named if b is not None]


def label(band: Mapping[str, Any]) -> str:
    """``Band 12 (512.3 nm)``."""
    wavelength = band["wavelength"]
    known = wavelength is not None and math.isfinite(wavelength)
    return f"Band {numbered(band)}" + (f" ({wavelength:.1f} nm)" if known else "")


def _profile(band: Mapping[str, Any], b: int, found: Measured, words: str) -> dict[str, Any]:
    number = {key: band[key] for key in ("band", "part") if key in band}
    entry: dict[str, Any] = number | {"label": f"{label(band)}, the {words}"}
    for kind, means in (("row", found.rows), ("column", found.cols)):
        length = means["before"].total.shape[1]
        step = -(-length // PROFILE_POINTS)
        entry[kind] = {"at": list(range(1, length + 1, step)), "step": step}
        for name, profile in means.items():
            entry[kind][name] = profile.mean(b)[::step].tolist()
    return entry


def _spectra(found: Measured, denoised: Sequence[int]) -> list[dict[str, Any]]:
    """Pixels as unlike as possible: from the median brightness on, each the farthest in angle from those before it."""
    if not denoised:
        return []
    whole = np.flatnonzero(found.grid_valid[list(denoised)].all(axis=0))
    if whole.size == 0:
        return []
    values = found.grid_spectra["after"][np.array(denoised)][:, whole].astype(np.float64)
    bright = values.mean(axis=0)
    low, high = np.percentile(bright, (2, 98))  # outliers make poor examples
    keep = (bright >= low) & (bright <= high)
    whole, values, bright = whole[keep], values[:, keep], bright[keep]
    units = values / np.maximum(np.linalg.norm(values, axis=0), 1e-12)
    chosen = [int(np.argmin(np.abs(bright - np.median(bright))))]
    nearest = units.T @ units[:, chosen[0]]
    while len(chosen) < min(SPECTRA, whole.size):
        nearest[chosen] = 2
        chosen.append(int(np.argmin(nearest)))
        nearest = np.maximum(nearest, units.T @ units[:, chosen[-1]])
    picked = sorted(whole[chosen], key=lambda i: tuple(found.grid[i]))
    return [
        {"row": int(found.grid[i, 0]) + 1, "column": int(found.grid[i, 1]) + 1}
        | {name: spectra[:, i].astype(float).tolist() for name, spectra in found.grid_spectra.items()}
        for i in picked
    ]


def _plates(
    cubes: Mapping[str, Cube], found: Measured, bands: Sequence[Mapping[str, Any]], denoised: Sequence[int],
    worst: int | None, median: int | None,
) -> tuple[pictures.Plate, ...]:  # fmt: skip
    cube = cubes["before"]
    seen = np.any(found.grid_valid[list(denoised)] if denoised else found.grid_valid, axis=0, keepdims=True)[0]
    detail, overview = pictures.choose_views(cube.shape[1:], found.grid, seen)
    rgb, words = pictures.choose_rgb(cube.bands, cube.tags, denoised, parts=2 if "complex" in cube.layout else 1)
    what = f"{words[0].upper()}{words[1:]} ({', '.join(label(bands[b]).lower() for b in rgb)})"
    views = [("The scene", overview), ("A closer look", detail)] if overview else [("The scene", detail)]
    plates = [pictures.plate(title, what, cubes, view, rgb) for title, view in views]
    for b, words in _named(worst, median):
        if [b] != rgb:
            name = f"{label(bands[b])}, the {words}"
            plates.append(pictures.plate(f"The {words}", name, cubes, detail, [b]))
    return tuple(plates)


def _describe(cube: Cube) -> dict[str, Any]:
    cube = cube.layout.get("complex", cube)  # as the file has it
    bands, rows, cols = cube.shape
    nodata = sorted({v for v in cube.nodata if v is not None}, key=str)
    return {
        "name": cube.name,
        "format": cube.format,
        "bands": bands,
        "rows": rows,
        "columns": cols,
        "dtype": cube.layout.get("stored", cube.dtype),
        "nodata": [str(v) if isinstance(v, float) and not math.isfinite(v) else v for v in nodata],
    }


def _median(values: Sequence[float]) -> float:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return float(np.median(known)) if known else math.nan


def _by(shape: Sequence[int]) -> str:
    return " x ".join(str(s) for s in shape)


def _clean(value: Any) -> Any:
    """JSON-ready: no NaN, no NumPy scalars, no paths."""
    if isinstance(value, Mapping):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_clean(v) for v in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value if value is None else str(value)


def _write(path: Path, text: str) -> None:
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as fault:
        raise WriteError(f"{path}: cannot write the report ({fault.strerror}); choose another --report") from fault
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except OSError as fault:
        raise WriteError(f"{path}: cannot write the report ({fault.strerror}); choose another --report") from fault
    finally:
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

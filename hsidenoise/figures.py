"""Charts of the report, as SVG in ``data:`` URIs: each isolated, scalable and with its own alternative text."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Band = Mapping[str, Any]

# Okabe and Ito's palette, told apart by all common kinds of colour vision and in grey.
COLOUR = {"before": "#d55e00", "after": "#0072b2", "reference": "#111111", "removed": "#7a7a7a", "flag": "#cc79a7"}
LABEL = {"before": "before", "after": "after", "reference": "reference", "removed": "removed"}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

STYLE: Any = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "axes.titlelocation": "left",
    "axes.titlecolor": "#333333", "axes.edgecolor": "#9a9a9a", "axes.labelcolor": "#333333", "axes.linewidth": 0.6,
    "axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "grid.color": "#e7e7e7", "grid.linewidth": 0.6, "xtick.color": "#9a9a9a", "ytick.color": "#9a9a9a",
    "xtick.labelcolor": "#333333",
    "ytick.labelcolor": "#333333", "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "ytick.minor.width": 0.4, "legend.frameon": False, "legend.fontsize": 7.5,
    "lines.linewidth": 1.1, "lines.solid_joinstyle": "round", "svg.fonttype": "none", "svg.hashsalt": "hsidenoise",
    "path.simplify_threshold": 0.2, "axes.formatter.useoffset": False,
    "figure.constrained_layout.w_pad": 0.06, "figure.constrained_layout.h_pad": 0.05,
    "figure.constrained_layout.wspace": 0.04,
}  # fmt: skip


def draw(paint: Callable[[Any], None], height: float, width: float = 10.0) -> str:
    """Run `paint` on an empty figure of `width` x `height` inches and return it as a URI."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue().decode().replace("'DejaVu Sans', 'Bitstream Vera Sans'", FONT).replace("DejaVu Sans", FONT)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


class Spectrum:
    """The spectral axis of a chart: wavelength where every band has one, band number otherwise."""

    def __init__(self, bands: Sequence[Band]) -> None:
        wavelength = _column(bands, "wavelength")
        self.known = bool(np.isfinite(wavelength).all())
        self.x = wavelength if self.known else _places(bands)
        self.order = np.argsort(self.x, kind="stable")
        parts = bool(bands[0].get("part"))
        band = "Band; its imaginary part half a step on" if parts else "Band"
        self.label = "Wavelength (nm)" if self.known else band
        self.passed = np.array([band["status"] != "denoised" for band in bands])
        places = np.unique(self.x) if parts else self.x[self.order]  # both parts are of one wavelength
        self.step = float(np.median(np.diff(places))) if len(places) > 1 else 1.0

    def broken(self, values: Floats) -> tuple[Floats, Floats]:
        """Axis and values in plotting order, with NaN at detector gaps."""
        x, y = self.x[self.order], values[self.order]
        breaks = np.flatnonzero(np.diff(x) > 5 * max(self.step, 1e-9)) + 1
        return np.insert(x, breaks, np.nan), np.insert(y, breaks, np.nan)

    def plot(self, axes: Any, values: Floats, *, skip: bool = True, **style: Any) -> None:
        """A line with gaps at missing values, at detector gaps and, with `skip`, at bands passed through."""
        x, y = self.broken(np.where(self.passed & skip, np.nan, values))
        alone = np.isfinite(y) & ~np.isfinite(np.roll(y, 1)) & ~np.isfinite(np.roll(y, -1))
        axes.plot(x, y, **({"marker": "o", "ms": 3} if len(values) <= 16 else {}), **style)
        if alone.any() and len(values) > 16:
            axes.plot(x[alone], y[alone], "o", ms=1.5, color=style.get("color"), zorder=style.get("zorder"))

    def shade(self, axes: Any) -> None:
        """Grey behind the bands that were passed through."""
        half = self.step / 2
        for i in np.flatnonzero(self.passed):
            axes.axvspan(self.x[i] - half, self.x[i] + half, color="#eeeeee", lw=0, zorder=0)
        axes.set_xlim(self.x.min() - half - 1e-9, self.x.max() + half + 1e-9)
        axes.set_xlabel(self.label)
        if not self.known:
            axes.xaxis.get_major_locator().set_params(integer=True)


def noise(bands: Sequence[Band], unit: str) -> str:
    """Noise of each band before and after, and the size of what was removed; empty if nothing is known."""
    axis = Spectrum(bands)
    lines = {"before": _column(bands, "sigma_before"), "removed": _column(bands, "removed_rms"),
             "after": _column(bands, "sigma_after")}  # fmt: skip
    lines = {name: np.where(values > 0, values, np.nan) for name, values in lines.items()}
    fine = _column(bands, "sigma_after_fine")
    fine = np.where(fine > 0, fine, np.nan)
    shown = [v[~axis.passed] for v in lines.values()]
    if len(bands) < 2 or not np.isfinite(np.concatenate(shown)).any():
        return ""

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        names = {"before": "noise before", "removed": "removed (rms)", "after": "noise after, lower bound"}
        (x, low), (_, high) = (axis.broken(np.where(axis.passed, np.nan, v)) for v in (lines["after"], fine))
        axes.fill_between(x, low, high, color=COLOUR["after"], alpha=0.1, lw=0)
        axis.plot(axes, lines["before"], color=COLOUR["before"], label=names["before"])
        axis.plot(axes, lines["removed"], color="#222222", lw=0.9, ls=(0, (2, 1.5)), label=names["removed"], zorder=4)
        axis.plot(axes, fine, color=COLOUR["after"], lw=0.8, ls=":", label="pixel-scale variation after, with image")
        axis.plot(axes, lines["after"], color=COLOUR["after"], label=names["after"])
        _log(axes)
        axes.set_ylabel(f"Standard deviation ({unit})")
        axis.shade(axes)
        _legend(figure, axes)

    return draw(paint, 2.9)


def profiles(entries: Sequence[Mapping[str, Any]], unit: str) -> str:
    """Mean value against row and against column, a line of two charts for each band."""
    if not any(_number(v) for entry in entries for v in entry["column"]["before"]):
        return ""
    kinds = [kind for kind in ("row", "column") if len(entries[0][kind]["at"]) > 1]
    if not kinds:
        return ""

    def paint(figure: Any) -> None:
        grid = figure.subplots(len(entries), len(kinds), squeeze=False)
        for line, entry in zip(grid, entries, strict=True):
            for axes, kind in zip(line, kinds, strict=True):
                for name, z in (("before", 1), ("after", 3), ("reference", 2)):
                    if name in entry[kind]:
                        values = np.array(entry[kind][name], float)
                        at = np.array(entry[kind]["at"], float)
                        width = {"before": 0.8, "after": 1.1, "reference": 1.0}[name]
                        axes.plot(at, values, color=COLOUR[name], lw=width, zorder=z, label=LABEL[name],
                                  ls="--" if name == "reference" else "-",
                                  marker="o" if np.isfinite(values).sum() < 2 else "", ms=3)  # fmt: skip
                axes.set_title(f"{entry['label']}: mean of each {kind}")
                axes.set_xlabel(f"{kind.capitalize()} number")
                axes.margins(x=0.01)
            line[0].set_ylabel(f"Mean ({unit})")
        _legend(figure, grid[0][0])

    return draw(paint, 0.35 + 2.15 * len(entries))


def spectra(bands: Sequence[Band], pixels: Sequence[Mapping[str, Any]], unit: str) -> str:
    """Spectra of chosen pixels, before and after."""
    if not pixels or len(bands) < 2:
        return ""
    axis = Spectrum(bands)

    def paint(figure: Any) -> None:
        lines = -(-len(pixels) // 2)
        grid = np.atleast_1d(figure.subplots(lines, min(2, len(pixels)), squeeze=False)).ravel()
        for axes, pixel in zip(grid, pixels, strict=False):
            for name, z, width in (("before", 1, 0.8), ("after", 3, 1.1), ("reference", 2, 1.0)):
                if name in pixel:
                    axis.plot(axes, np.array(pixel[name], float), color=COLOUR[name], lw=width, zorder=z,
                              label=LABEL[name], ls="--" if name == "reference" else "-")  # fmt: skip
            axes.set_title(f"Row {pixel['row']}, column {pixel['column']}")
            axes.set_ylabel(f"Value ({unit})")
            axis.shade(axes)
        for axes in grid[len(pixels) :]:
            axes.remove()
        _legend(figure, grid[0])

    return draw(paint, 0.3 + 2.1 * -(-len(pixels) // 2))


def fidelity(bands: Sequence[Band]) -> str:
    """PSNR and SSIM of each band against the reference, before and after."""
    axis = Spectrum(bands)
    if len(bands) < 2 or not np.isfinite(_column(bands, "psnr_after")).any():
        return ""
    kinds = [("psnr", "PSNR (dB)"), ("ssim", "SSIM")]
    kinds = [k for k in kinds if np.isfinite(_column(bands, f"{k[0]}_after")).any()]

    def paint(figure: Any) -> None:
        grid = figure.subplots(1, len(kinds), squeeze=False)[0]
        for axes, (key, label) in zip(grid, kinds, strict=True):
            for name in ("before", "after"):
                axis.plot(axes, _column(bands, f"{key}_{name}"), color=COLOUR[name], label=LABEL[name])
            axes.set_ylabel(label)
            axis.shade(axes)
        _legend(figure, grid[0])

    return draw(paint, 2.7)


def structure(bands: Sequence[Band]) -> str:
    """Left: share of each band's detail that was removed. Right: stripe strength before and after."""
    axis = Spectrum(bands)
    loss, share = 100 * _column(bands, "detail_loss"), _column(bands, "structure_share")
    found = np.array([bool(band["structure_found"]) for band in bands])
    stripe = {name: _column(bands, f"stripes_{name}") for name in ("before", "after")}
    stripe = {name: np.where(values > 0, values, np.nan) for name, values in stripe.items()}
    panels = [name for name, values in (("loss", loss), ("stripes", stripe["before"])) if np.isfinite(values).any()]
    if len(bands) < 2 or not panels:
        return ""

    def paint(figure: Any) -> None:
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            if panel == "loss":
                counted = np.where(np.isfinite(share) & ~found & (loss > 2), 0.0, loss)  # not told apart from chance
                axis.plot(axes, counted, color=COLOUR["after"])
                axes.plot(axis.x[found], loss[found], "o", ms=3, mfc="white", mec=COLOUR["before"], mew=0.9, ls="",
                          label="image structure removed")  # fmt: skip
                axes.axhline(2, color="#777777", lw=0.8, ls=":", label="limit, 2 %")
                axes.set_ylim(0, max(4.0, 1.15 * float(np.nanmax(counted))))
                axes.set_ylabel("Image detail removed (% of energy)")
            else:
                for name, values in stripe.items():
                    axis.plot(axes, values, color=COLOUR[name], label=LABEL[name])
                axes.axhline(1, color="#777777", lw=0.8, ls=":", label="noise alone")
                _log(axes)
                axes.set_ylabel("Column means, rms / noise")
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1, handlelength=1.6, ncols=3)
            axis.shade(axes)

    return draw(paint, 2.8)


def convergence(tiles: Sequence[Mapping[str, Any]], shape: tuple[int, int]) -> str:
    """How many evaluations tiles took, and where the residual stayed large."""
    tiles = [t for t in tiles if t.get("iterations")]  # 0: nothing valid in it, the network was not run
    counts = np.array([t["iterations"] for t in tiles if _number(t["iterations"])], int)
    placed = [t for t in tiles if all(_number(t.get(k)) for k in ("row", "col", "rows", "cols", "residual"))]
    if counts.size == 0:
        return ""
    placed = placed if len(placed) > 1 else []

    def paint(figure: Any) -> None:
        wide = shape[1] > 1.5 * shape[0]
        left, *rest = np.atleast_1d(figure.subplots(1, 2 if placed else 1, width_ratios=[1, 1][: 2 if placed else 1]))
        edges = np.arange(counts.min(), counts.max() + 2) - 0.5
        left.hist(counts, edges, color=COLOUR["after"], rwidth=0.85)
        left.set_xlabel("Evaluations of the network's step")
        left.set_ylabel("Tiles")
        left.xaxis.get_major_locator().set_params(integer=True)
        left.yaxis.get_major_locator().set_params(integer=True)
        if counts.min() == counts.max():
            left.set_xlim(counts.min() - 3, counts.max() + 3)
        left.grid(axis="x", visible=False)
        for axes in rest:
            _tile_map(figure, axes, placed, shape, wide)

    return draw(paint, 2.6)


def _tile_map(figure: Any, axes: Any, tiles: Sequence[Mapping[str, Any]], shape: tuple[int, int], wide: bool) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import LogNorm

    residual = np.maximum([float(t["residual"]) for t in tiles], 1e-12)
    low, high = float(residual.min()), float(residual.max())
    boxes = [[(t["col"], t["row"]), (t["col"] + t["cols"], t["row"]), (t["col"] + t["cols"], t["row"] + t["rows"]),
              (t["col"], t["row"] + t["rows"])] for t in tiles]  # fmt: skip
    lie = shape[0] > 1.5 * shape[1]
    if lie:
        boxes = [[(y, x) for x, y in box] for box in boxes]
    drawn = PolyCollection(boxes, array=residual, cmap="cividis", norm=LogNorm(low, high if high > low else low * 10),
                           edgecolors="white", linewidths=0.4)  # fmt: skip
    axes.add_collection(drawn)
    open_ends = [box for box, t in zip(boxes, tiles, strict=True) if t.get("converged") is False]
    missed = np.array([np.mean(box, axis=0) for box in open_ends])
    if missed.size:
        axes.plot(missed[:, 0], missed[:, 1], "x", color="#ffffff", ms=5, mew=2.4)
        axes.plot(missed[:, 0], missed[:, 1], "x", color=COLOUR["before"], ms=5, mew=1.2)
    rows, cols = shape if not lie else shape[::-1]
    axes.set(xlim=(0, cols), ylim=(rows, 0), xlabel="Row" if lie else "Column", ylabel="Column" if lie else "Row")
    axes.set_aspect("equal" if 0.25 < rows / cols < 4 else "auto")
    axes.grid(visible=False)
    figure.colorbar(drawn, ax=axes, label="Relative residual", fraction=0.05, pad=0.03)


def _log(axes: Any) -> None:
    """A logarithmic axis with plain numbers, also when it spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    short = high < 30 * low
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if short else (1,), numticks=8 if short else 6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), handlelength=1.6)


def _places(bands: Sequence[Band]) -> Floats:
    """Where bands without wavelengths stand on the axis: at their numbers."""
    return np.array([band["band"] + 0.5 * (band.get("part") == "imaginary") for band in bands], float)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _column(bands: Sequence[Band], key: str) -> Floats:
    return np.array([band.get(key) if _number(band.get(key)) else np.nan for band in bands], float)

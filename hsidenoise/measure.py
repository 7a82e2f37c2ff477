"""What a report needs to know of two written files, measured in one pass over row blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cube import Cube, Window
from .metrics import SSIM_RADIUS, FineScaleAccumulator, PairAccumulator, SSIMAccumulator
from .noise import NoiseAccumulator
from .samples import inside as within
from .structure import StructureAccumulator

Floats = NDArray[np.float64]

BLOCK_SAMPLES = 8_000_000  # samples of one block: 32 MB as float32
BLOCK_ROWS = 16  # never fewer: the structure measure needs neighbourhoods
STRUCTURE_PIXELS = 1_000_000  # beyond this many pixels the structure measure looks at every k-th block only
NOISE_PIXELS = 100_000  # of the whole scene: the noise estimate needs no more
GRID = 40  # spectra are kept at GRID x GRID pixels


@dataclass
class Profile:
    """Sums and counts of valid samples along one axis: means of each row or column."""

    total: Floats
    count: NDArray[np.int32]

    def mean(self, band: int) -> Floats:
        """Means of `band`, ``(rows,)`` or ``(cols,)``; NaN where nothing was valid."""
        return _over(self.total[band], self.count[band])


@dataclass
class Measured:
    """Everything kept of a pass: profiles, per-band sums and the accumulators. Bands come first in all arrays."""

    shape: tuple[int, int, int]
    noise: dict[str, NoiseAccumulator]
    structure: StructureAccumulator
    to_input: PairAccumulator
    fine: FineScaleAccumulator
    structure_step: int = 1
    rows: dict[str, Profile] = field(default_factory=dict)
    cols: dict[str, Profile] = field(default_factory=dict)
    pairs: dict[str, PairAccumulator] = field(default_factory=dict)
    ssim: dict[str, SSIMAccumulator] = field(default_factory=dict)
    scale: tuple[float, float] | None = None
    judged: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    removed_energy: Floats = field(default_factory=lambda: np.zeros(0))
    passed_changed: int = 0
    invalid_changed: int = 0
    newly_invalid: int = 0
    comparable: bool = True
    grid: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    grid_spectra: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    grid_valid: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))

    def mean(self, which: str) -> Floats:
        """Mean of each band over valid samples; NaN where there are none."""
        total, n = self.rows[which].total.sum(axis=1), self.rows[which].count.sum(axis=1)
        return _over(total, n)

    def valid(self) -> Floats:
        """Valid samples of each band."""
        count: Floats = self.rows["before"].count.sum(axis=1).astype(np.float64)
        return count

    def removed_rms(self) -> Floats:
        """Root mean square of before minus after, per band."""
        rms: Floats = np.sqrt(_over(self.removed_energy, self.valid()))
        return rms


def _over(total: Floats, n: NDArray[Any]) -> Floats:
    mean: Floats = np.divide(total, n, out=np.full(n.shape, np.nan), where=n > 0)
    return mean


def measure(
    before: Cube, after: Cube, reference: Cube | None, denoised: Sequence[int], *, noise_before: bool = True,
    limits: Floats | None = None,
) -> Measured:  # fmt: skip
    """Stream both scenes (and the reference) once and measure.

    Parameters
    ----------
    before, after, reference
        Cubes of one shape.
    denoised
        Indices of the bands that were meant to change; the others are checked to be identical.
    noise_before
        Estimate the noise of the input too; false when it is known.
    limits
        Least and greatest value of each band that is a measurement, (2, bands): one broken pixel of 1e30 would be all
        that a report shows. Samples beyond are checked like the others, but not measured.
    """
    bands, n_rows, n_cols = before.shape
    names = ["before", "after"] + (["reference"] if reference else [])
    blocks = list(_blocks(before, SSIM_RADIUS if reference else 0))
    most = max(1000, NOISE_PIXELS // len(blocks))
    result = Measured(
        before.shape,
        noise={name: NoiseAccumulator(bands, most) for name in (("before", "after") if noise_before else ("after",))},
        structure=StructureAccumulator(bands, denoised),
        to_input=PairAccumulator(bands),
        fine=FineScaleAccumulator(bands),
        rows={name: Profile(np.zeros((bands, n_rows)), np.zeros((bands, n_rows), np.int32)) for name in names},
        cols={name: Profile(np.zeros((bands, n_cols)), np.zeros((bands, n_cols), np.int32)) for name in names},
        removed_energy=np.zeros(bands),
        comparable=before.dtype == after.dtype,
        structure_step=-(-n_rows * n_cols // STRUCTURE_PIXELS),
    )
    if reference:
        low, high = result.scale = _scale(reference)
        # A band that is flagged bad holds no measurement: its noise would drown the angles of all others.
        good = np.array(before.bands.usable())
        result.judged = good if good.any() else ~good
        result.pairs = {name: PairAccumulator(bands, result.judged) for name in ("before", "after")}
        result.ssim = {name: SSIMAccumulator(bands, high - low, low) for name in ("before", "after")}
    sampler = _GridSampler(before.shape, names)
    for i, (core, padded) in enumerate(blocks):
        inside = slice(core.row_start - padded.row_start, core.row_stop - padded.row_start)
        x, y, xv, yv = _compare(before, after, padded, inside, denoised, result, limits)
        both = xv & yv
        xs, ys, vs = x[:, inside], y[:, inside], both[:, inside]
        arrays = {"before": (xs, vs), "after": (ys, vs)}
        thin = max(1, min(xs.shape[1] * n_cols // most, xs.shape[1] // 4))
        for name, noise in result.noise.items():
            block = xs if name == "before" else ys
            noise.add(block[:, ::thin], vs[:, ::thin])
        result.fine.add(ys, vs)
        if i % result.structure_step == 0:
            result.structure.add(xs, ys, vs)
        result.to_input.add(xs, ys, vs)
        for b in range(bands):
            result.removed_energy[b] += np.sum((xs[b].astype(np.float64) - ys[b]) ** 2, where=vs[b])
        if reference:
            r, rv = reference.read(padded)
            r[~rv] = 0
            shared = both & rv
            for name, cube in (("before", x), ("after", y)):
                result.pairs[name].add(r[:, inside], cube[:, inside], shared[:, inside])
                result.ssim[name].add(r, cube, shared)
            arrays["reference"] = (r[:, inside], shared[:, inside])
        for name, (block, valid) in arrays.items():
            for profile, axis, place in ((result.rows[name], 2, np.s_[:, core.row_start : core.row_stop]),
                                         (result.cols[name], 1, np.s_[:, :])):  # fmt: skip
                profile.total[place] += block.sum(axis=axis, dtype=np.float64, where=valid)
                profile.count[place] += valid.sum(axis=axis)
        sampler.add(core, arrays)
    result.grid, result.grid_spectra, result.grid_valid = sampler.result()
    return result


def _compare(
    before: Cube, after: Cube, window: Window, inside: slice, denoised: Sequence[int], result: Measured,
    limits: Floats | None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:  # fmt: skip
    """Read both; count samples that should be identical and are not; invalid samples come back as 0."""
    everything = range(before.shape[0])
    raw_x, raw_y = before.raw(window), after.raw(window)
    xv = before.validity(raw_x, window, everything)
    # Judged by the input's mask, so that samples the output lost are counted instead of skipped.
    yv = after.validity(raw_y, window, everything)
    if result.comparable:
        chosen = set(denoised)
        for b in everything:
            whole = bool(xv[b].all())
            if b in chosen and whole:
                continue
            differ = _differ(raw_x[b, inside], raw_y[b, inside])
            if b not in chosen:
                result.passed_changed += int(np.count_nonzero(differ & xv[b, inside]))
            result.invalid_changed += int(np.count_nonzero(differ & ~xv[b, inside]))
    result.newly_invalid += int(np.count_nonzero(xv[:, inside] & ~yv[:, inside]))
    with np.errstate(over="ignore"):
        x, y = raw_x.astype(np.float32), raw_y.astype(np.float32)
    if limits is not None:
        xv &= within(x, limits)
    x[~xv], y[~yv] = 0, 0
    return x, y, xv, yv


def _differ(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    differ: NDArray[np.bool_] = a != b
    if a.dtype.kind in "fc":
        differ &= ~(np.isnan(a) & np.isnan(b))
    return differ


def _blocks(cube: Cube, margin: int) -> Iterator[tuple[Window, Window]]:
    """Row blocks over the full width, each with and without `margin` more rows on both sides."""
    bands, rows, cols = cube.shape
    height = max(BLOCK_ROWS, BLOCK_SAMPLES // (bands * cols))
    block = cube.layout.get("block")
    if block and height > block[0]:
        height -= height % block[0]  # whole file blocks: none is decoded twice
    for start in range(0, rows, height):
        stop = min(start + height, rows)
        yield Window(start, stop, 0, cols), Window(max(start - margin, 0), min(stop + margin, rows), 0, cols)


def _scale(reference: Cube) -> tuple[float, float]:
    """The values that count as 0 and 1: minimum and 99.95th percentile, from at most some 4 million samples."""
    bands, rows, cols = reference.shape
    step = max(1, int(np.ceil(np.sqrt(bands * rows * cols / 4_000_000))))
    kept = []
    for core, _ in _blocks(reference, 0):
        values, valid = reference.read(core)
        pick = np.s_[:, (-core.row_start) % step :: step, ::step]
        kept.append(values[pick][valid[pick]])
    sample = np.concatenate(kept)
    if sample.size == 0:
        return 0.0, 1.0
    low, high = float(sample.min()), float(np.percentile(sample.astype(np.float64), 99.95))
    return low, high if high > low else low + 1.0


class _GridSampler:
    """Spectra at a coarse grid of pixels, gathered block by block."""

    def __init__(self, shape: tuple[int, int, int], names: Sequence[str]) -> None:
        self._rows, self._cols = (
            np.unique(np.linspace(0, n - 1, min(n, GRID)).round().astype(np.int64)) for n in shape[1:]
        )
        self._spectra: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
        self._valid: list[NDArray[np.bool_]] = []

    def add(self, core: Window, arrays: dict[str, tuple[NDArray[np.float32], NDArray[np.bool_]]]) -> None:
        rows = self._rows[(self._rows >= core.row_start) & (self._rows < core.row_stop)] - core.row_start
        for name, (block, valid) in arrays.items():
            there = valid[:, rows][:, :, self._cols].reshape(len(valid), -1)
            values = block[:, rows][:, :, self._cols].reshape(there.shape)
            self._spectra[name].append(np.where(there, values, np.float32("nan")))
            if name == "before":
                self._valid.append(there)

    def result(self) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float32]], NDArray[np.bool_]]:
        grid = np.stack(np.meshgrid(self._rows, self._cols, indexing="ij"), axis=-1).reshape(-1, 2)
        spectra = {name: np.concatenate(parts, axis=1) for name, parts in self._spectra.items()}
        return grid, spectra, np.concatenate(self._valid, axis=1)

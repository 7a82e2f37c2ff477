"""What will be done to a scene, decided before the first tile is denoised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import probe
from .cube import Cube
from .detectors import Detectors
from .engine import FEATHER, Engine, automatic_tile, check_memory
from .errors import UsageError
from .frontends import FrontEnd, Windows, eigen_images, examine, sharpened
from .spectral import Normalisation, windows
from .survey import FAR, Survey, survey
from .tiles import Tile, plan


@dataclass(frozen=True)
class Job:
    """What will be done to a scene, decided before the first tile.

    Parameters
    ----------
    front
        What the network is shown.
    denoised
        Zero-based bands that are replaced.
    passed
        Why each other band is not, by zero-based index.
    tiles
        The tile plan.
    sigma
        Noise of each band, raw units.
    valid
        Fraction of valid pixels of each band.
    limits
        Least and greatest value of each band that is taken for a measurement, (2, bands); no interval where unknown.
    """

    front: FrontEnd
    denoised: list[int]
    passed: dict[int, str]
    tiles: list[Tile]
    sigma: NDArray[np.float64]
    valid: NDArray[np.float64]
    limits: NDArray[np.float64]


def select_bands(text: str, cube: Cube) -> set[int]:
    """``"1,5..40"`` as zero-based bands of `cube`; all for an empty text. A complex band of the file is both its parts.

    Raises
    ------
    UsageError
        Not such a list, or a band the scene does not have.
    """
    each = 2 if "complex" in cube.layout else 1
    count = cube.shape[0] // each
    if not text:
        return set(range(cube.shape[0]))
    chosen: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition("..")
        try:
            low, high = int(first), int(last) if dots else int(first)
        except ValueError:
            raise UsageError(f"--bidx {text}: {part!r} is not a band number or a range a..b") from None
        if not 1 <= low <= high <= count:
            raise UsageError(f"--bidx {text}: {part} is outside of bands 1 to {count}")
        chosen.update(range(each * (low - 1), each * high))
    return chosen


def prepare(cube: Cube, chosen: set[int], engine: Engine, tile: int) -> Job:
    """Survey the scene and decide what is done to it.

    Raises
    ------
    SceneTooLargeError
        Not even the smallest tiles fit this machine's memory.
    UsageError
        `tile` is too small for the model.
    """
    check_memory(cube, engine, tile)
    size = tile or automatic_tile(cube, engine)
    tiles = plan(*cube.shape[1:], size, halo=engine.card.halo, feather=FEATHER, align=engine.align)
    found = survey(cube)
    passed = left_alone(cube, found)
    decide = _eigen if engine.model.frontend == "eigen" else _windows
    front, sigma, reasons, limits = decide(cube, found, passed, set(range(cube.shape[0])) - chosen, engine)
    passed |= reasons
    denoised = [b for b in range(cube.shape[0]) if b not in passed]
    return Job(front, denoised, dict(sorted(passed.items())), tiles, sigma, found.valid, limits)


def left_alone(cube: Cube, found: Survey) -> dict[int, str]:
    """Why some bands are no use at all, by zero-based index."""
    passed: dict[int, str] = {}
    usable = cube.bands.usable()
    for b in range(cube.shape[0]):
        if cube.bands.roles and cube.bands.roles[b]:
            passed[b] = f"{cube.bands.roles[b]} band, no measurement"
        elif not usable[b]:
            passed[b] = "flagged bad"
        elif found.valid[b] == 0:
            passed[b] = "no valid pixel"
        elif found.constant[b]:
            passed[b] = "constant"
    return passed


Decision = tuple[FrontEnd, NDArray[np.float64], dict[int, str], NDArray[np.float64]]


def _eigen(cube: Cube, found: Survey, passed: dict[int, str], others: set[int], engine: Engine) -> Decision:
    """All usable bands of a detector together; those not selected still guide the others."""
    reasons = _unknown(found, passed)
    reach = FAR * np.fmax(found.high - found.low, 10 * found.sigma)
    limits = np.stack([found.low - reach, found.high + reach])
    bands = [b for b in range(cube.shape[0]) if b not in passed and b not in reasons]
    reasons |= {b: "not selected" for b in others if b not in passed and b not in reasons}
    sigma = found.sigma.copy()
    if not set(bands) - set(reasons):
        return Windows((), [], [], None, sigma, found.low, limits), sigma, reasons, limits
    front = Detectors(
        tuple(
            sharpened(eigen_images(cube, part, found, limits, engine.model.bands), cube, engine)
            for part in cube.bands.by_detector(bands)
        )
    )
    sigma[front.bands] = front.sigma
    return front if len(front.fronts) > 1 else front.fronts[0], sigma, reasons, limits


def _unknown(found: Survey, passed: dict[int, str]) -> dict[int, str]:
    unknown = [b for b in np.flatnonzero(np.isnan(found.sigma)).tolist() if b not in passed]
    return dict.fromkeys(unknown, "too few pixels to estimate its noise")


def _windows(cube: Cube, found: Survey, passed: dict[int, str], others: set[int], engine: Engine) -> Decision:
    """Windows of neighbouring bands, without those the network would harm."""
    sigma = found.sigma.copy()
    reasons = _unknown(found, passed)
    live = [[b for b in group if b not in passed and b not in reasons] for group in cube.bands.groups()]
    band_windows = windows([g for g in live if g], engine.model.bands)
    normalisations = [Normalisation.of(w, found.low, found.high) for w in band_windows]
    limits = np.stack([np.full(cube.shape[0], np.inf), np.full(cube.shape[0], -np.inf)])
    for window, normal in zip(band_windows, normalisations, strict=True):
        kept = list(window.kept)
        limits[0, kept] = np.minimum(limits[0, kept], normal.low - FAR * normal.scale)
        limits[1, kept] = np.maximum(limits[1, kept], normal.low + (1 + FAR) * normal.scale)
    bands = sorted(b for group in live for b in group)
    defects = None
    if bands:
        defects, sigma[bands] = examine(cube, bands, found, limits)
    for window, normal in zip(band_windows, normalisations, strict=True):
        for b in window.kept:
            level = sigma[b] / normal.scale
            if level < engine.card.floor:
                reasons[b] = f"noise {level:.2g} of the range, below the model's floor of {engine.card.floor:.2g}"
    for b in others - set(passed):
        reasons.setdefault(b, "not selected")

    def restricted(to: set[int]) -> Windows:
        kept = [i for i, w in enumerate(band_windows) if set(w.kept) & to]
        needed = {b for i in kept for b in band_windows[i].bands}
        chosen = sorted(needed) if defects is None or not needed else bands  # all tell of each other's defects
        use = [band_windows[i] for i in kept], [normalisations[i] for i in kept]
        return Windows(tuple(chosen), *use, defects, sigma, found.low, limits)

    # Bands left alone still guide the others of their window; windows that hold no other are not needed.
    left = set(bands) - set(reasons)
    removed = probe.removed_energy(cube, restricted(left), sigma, engine)
    for b in np.flatnonzero(removed > probe.HARMFUL).tolist():
        reasons.setdefault(b, f"the model would remove {removed[b]:.1f} times the energy of its noise")
    return restricted(left - set(reasons)), sigma, reasons, limits


def check_numbers(cube: Cube, job: Job, dtype: str) -> None:
    """Refuse integers for pixels that are no number, unless there is a nodata value to stand for them."""
    to_integers = np.dtype(cube.dtype).kind == "f" and np.dtype(dtype).kind in "iu"
    if to_integers and cube.read_mask is None and None in cube.nodata and (job.valid < 1).any():
        raise UsageError(f"--dtype {dtype}: the scene holds pixels that are no number; say by --nodata what they are")

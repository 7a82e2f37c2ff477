"""What will be done to a scene, decided before the first tile is denoised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import probe
from .cube import Cube
from .engine import FEATHER, Engine, automatic_tile
from .errors import UsageError
from .spectral import BandWindow, Normalisation, windows
from .survey import FAR, Survey, survey
from .tiles import Tile, plan


@dataclass(frozen=True)
class Job:
    """What will be done to a scene, decided before the first tile.

    Parameters
    ----------
    windows
        Band windows that go through the network.
    normalisations
        One for each window.
    denoised
        Zero-based bands that are replaced.
    passed
        Why each other band is not, by zero-based index.
    tiles
        The tile plan.
    limits
        Least and greatest value of each band that goes through the network, (2, bands), raw units.
    survey
        What the scene's first pass found.
    """

    windows: list[BandWindow]
    normalisations: list[Normalisation]
    denoised: list[int]
    passed: dict[int, str]
    tiles: list[Tile]
    limits: NDArray[np.float64]
    survey: Survey


def select_bands(text: str, count: int) -> set[int]:
    """``"1,5..40"`` as zero-based bands; all for an empty text.

    Raises
    ------
    UsageError
        Not such a list, or a band the scene does not have.
    """
    if not text:
        return set(range(count))
    chosen: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition("..")
        try:
            low, high = int(first), int(last) if dots else int(first)
        except ValueError:
            raise UsageError(f"--bidx {text}: {part!r} is not a band number or a range a..b") from None
        if not 1 <= low <= high <= count:
            raise UsageError(f"--bidx {text}: {part} is outside of bands 1 to {count}")
        chosen.update(range(low - 1, high))
    return chosen


def prepare(cube: Cube, chosen: set[int], engine: Engine, tile: int) -> Job:
    """Survey the scene and decide what is done to it."""
    size = tile or automatic_tile(cube, engine)
    tiles = plan(*cube.shape[1:], size, halo=engine.card.halo, feather=FEATHER, align=engine.align)
    found = survey(cube)
    count = cube.shape[0]
    passed: dict[int, str] = {}
    usable = cube.bands.usable()
    for b in range(count):
        if cube.bands.roles and cube.bands.roles[b]:
            passed[b] = f"{cube.bands.roles[b]} band, no measurement"
        elif not usable[b]:
            passed[b] = "flagged bad"
        elif found.valid[b] == 0:
            passed[b] = "no valid pixel"
        elif found.constant[b]:
            passed[b] = "constant"
    live = [[b for b in group if b not in passed] for group in cube.bands.groups()]
    band_windows = windows([g for g in live if g], engine.model.config.bands)
    normalisations = [Normalisation.of(w, found.low, found.high) for w in band_windows]
    limits = np.stack([np.full(count, np.inf), np.full(count, -np.inf)])
    for window, normal in zip(band_windows, normalisations, strict=True):
        for b in window.kept:
            level = found.sigma[b] / normal.scale
            if np.isnan(level):
                passed[b] = "too few pixels to estimate its noise"
            elif level < engine.card.floor:
                passed[b] = f"noise {level:.2g} of the range, below the model's floor of {engine.card.floor:.2g}"
        bands = list(window.kept)
        limits[0, bands] = np.minimum(limits[0, bands], normal.low - FAR * normal.scale)
        limits[1, bands] = np.maximum(limits[1, bands], normal.low + (1 + FAR) * normal.scale)
    for b in set(range(count)) - chosen:
        passed.setdefault(b, "not selected")
    # Bands left alone still guide the others of their window; windows that hold no other are not needed.
    tried = [i for i, w in enumerate(band_windows) if set(w.kept) - set(passed)]
    removed = probe.removed_energy(
        cube, [band_windows[i] for i in tried], [normalisations[i] for i in tried], limits, found, engine
    )
    for b in np.flatnonzero(removed > probe.HARMFUL).tolist():
        passed.setdefault(b, f"the model would remove {removed[b]:.1f} times the energy of its noise")
    denoised = [b for b in range(count) if b not in passed]
    needed = [i for i in tried if set(band_windows[i].kept) & set(denoised)]
    return Job(
        [band_windows[i] for i in needed], [normalisations[i] for i in needed], denoised, passed, tiles, limits, found
    )


def check_numbers(cube: Cube, job: Job, dtype: str) -> None:
    """Refuse integers for pixels that are no number, unless there is a nodata value to stand for them."""
    to_integers = np.dtype(cube.dtype).kind == "f" and np.dtype(dtype).kind in "iu"
    if to_integers and cube.read_mask is None and None in cube.nodata and (job.survey.valid < 1).any():
        raise UsageError(f"--dtype {dtype}: the scene holds pixels that are no number; say by --nodata what they are")

"""Pictures of a scene before, after and what lies between: which bands, which pixels, which stretch."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bands import Bands
from .cube import Cube, Window

Pixels = NDArray[np.uint8]

DETAIL = 320  # edge of the window shown pixel for pixel
OVERVIEW = 420  # longest edge of an overview
STRIP = 1000  # longest edge of an overview of a long strip
SMALL = 128 * 128  # pixels up to which a picture is kept without loss
NO_DATA = (238, 234, 226)


@dataclass(frozen=True)
class View:
    """Which pixels a picture shows: every `row_step`-th row and `col_step`-th column of `window`."""

    window: Window
    row_step: int = 1
    col_step: int = 1
    lying: bool = False  # rows run from left to right

    @property
    def words(self) -> str:
        """Words for a caption."""
        w = self.window
        if self.row_step == self.col_step == 1:
            text = f"rows {w.row_start + 1}–{w.row_stop}, columns {w.col_start + 1}–{w.col_stop}, pixel for pixel"
        else:
            text = f"the whole scene, {_every(self.row_step, 'row')} and {_every(self.col_step, 'column')}"
        return text + (", rows running from left to right" if self.lying else "")


@dataclass(frozen=True)
class Picture:
    """One panel, ``(rows, cols, 3)``, ready to encode."""

    label: str
    pixels: Pixels


@dataclass(frozen=True)
class Plate:
    """Panels that belong together, and how they were made."""

    title: str
    caption: str
    panels: tuple[Picture, ...]
    stacked: bool = False


def _every(step: int, what: str) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(step % 10 if step % 100 not in (11, 12, 13) else 0, "th")
    return f"every {what}" if step == 1 else f"every {step}{ending} {what}"


def choose_rgb(
    bands: Bands, tags: Mapping[str, Mapping[str, str]], usable: Sequence[int], parts: int = 1
) -> tuple[list[int], str]:
    """Bands for red, green and blue, zero-based, and words for the choice; one band means a grey picture.

    The file counts one band for as many `parts`.
    """
    if not usable:
        usable = range(bands.count)
    if len(usable) < 3:
        return [usable[0]], "one band, in grey"
    if len(bands.wavelength) == bands.count:
        known = np.array([bands.wavelength[b] for b in usable], float)
        for targets, words in (((660, 550, 470), "natural colours"), ((860, 660, 550), "near infrared as red"),
                               ((2200, 1650, 1050), "shortwave infrared")):  # fmt: skip
            distance = np.abs(known[None] - np.array(targets, float)[:, None])
            if np.isfinite(known).any() and np.all(np.nanmin(distance, axis=1) <= 40):
                return [usable[int(i)] for i in np.nanargmin(distance, axis=1)], words
    stored = re.findall(r"\d+", tags.get("ENVI", {}).get("default_bands", ""))
    if len(stored) == 3 and all(1 <= int(s) <= bands.count // parts for s in stored):
        return [parts * (int(s) - 1) for s in stored], "the file's default bands"
    if len(usable) <= 4:
        return list(usable[:3]), "the first three bands"
    return [usable[int(f * (len(usable) - 1))] for f in (0.8, 0.5, 0.2)], "three bands spread over the file"


def choose_views(shape: tuple[int, int], grid: NDArray[np.int64], valid: NDArray[np.bool_]) -> tuple[View, View | None]:
    """A window shown pixel for pixel, as full of valid pixels as can be, and an overview if the scene is larger.

    Parameters
    ----------
    shape
        Rows and columns of the scene.
    grid, valid
        ``(n, 2)`` sampled rows and columns, and ``(n,)`` whether each holds a measurement.
    """
    rows, cols = shape
    height, width = min(rows, DETAIL), min(cols, DETAIL)
    best, window = -1e9, Window(0, height, 0, width)
    for row in np.unique(np.linspace(0, rows - height, 9).astype(int)):
        for col in np.unique(np.linspace(0, cols - width, 9).astype(int)):
            inside = (grid[:, 0] >= row) & (grid[:, 0] < row + height)
            inside &= (grid[:, 1] >= col) & (grid[:, 1] < col + width)
            filled = float(valid[inside].mean()) if inside.any() else 0.0
            off_centre = abs(row + height / 2 - rows / 2) / rows + abs(col + width / 2 - cols / 2) / cols
            score = round(filled, 1) * 10 - off_centre
            if score > best:
                best, window = score, Window(int(row), int(row) + height, int(col), int(col) + width)
    detail = View(window)
    if rows <= DETAIL and cols <= DETAIL:
        return detail, None
    longest = STRIP if max(rows, cols) > 2 * min(rows, cols) else OVERVIEW
    fair = -(-max(rows, cols) // longest)
    # Strips longer than 8 : 1 are squeezed along their length, or nothing would be seen of their width.
    across = max(1, min(fair, min(rows, cols) * 8 // longest))
    steps = (fair, across) if rows >= cols else (across, fair)
    return detail, View(Window(0, rows, 0, cols), *steps, lying=rows > 2 * cols)


def read_view(cube: Cube, view: View, bands: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The pixels of a view, ``(bands, rows, cols)``, unaveraged so that noise looks as it is; and their validity."""
    w = view.window
    if view.row_step == 1:
        values, valid = cube.read(w, bands)
    else:
        parts = [cube.read(Window(r, r + 1, w.col_start, w.col_stop), bands)
                 for r in range(w.row_start, w.row_stop, view.row_step)]  # fmt: skip
        values, valid = (np.concatenate([part[i] for part in parts], axis=1) for i in (0, 1))
    values, valid = values[:, :, :: view.col_step], valid[:, :, :: view.col_step]
    return (values.swapaxes(1, 2), valid.swapaxes(1, 2)) if view.lying else (values, valid)


def plate(title: str, what: str, cubes: Mapping[str, Cube], view: View, bands: Sequence[int]) -> Plate:
    """Panels of one or three bands for each cube, in one stretch, and of what was removed, in its own.

    `cubes` has ``before``, ``after`` and perhaps ``reference``.
    """
    read = {name: read_view(cube, view, bands) for name, cube in cubes.items()}
    (x, xv), (y, yv) = read["before"], read["after"]
    both = xv & yv
    low, high = np.zeros(len(bands)), np.ones(len(bands))
    for i in range(len(bands)):
        if both[i].any():
            low[i], high[i] = np.percentile(y[i][both[i]].astype(np.float64), (2, 98))
    # A plain band still needs some width to be divided by.
    width = np.maximum(high - low, 1e-9 * np.maximum(np.abs(high), 1e-30))[:, None, None]
    removed = np.where(both, x.astype(np.float64) - np.where(both, y, 0), 0) / width
    size = float(np.percentile(np.abs(removed[both]), 99)) if both.any() else 0.0
    gain = float(f"{0.5 / size:.2g}") if size > 1e-12 else 1.0
    labels = {"before": "Before", "after": "After", "reference": "Reference"}
    panels = [
        Picture(labels[name], _paint((np.where(valid, values, 0) - low[:, None, None]) / width, valid))
        for name, (values, valid) in read.items()
    ]
    panels.insert(2, Picture("Removed", _paint(0.5 + gain * removed, both)))
    units = "; ".join(f"{lo:.4g} to {hi:.4g}" for lo, hi in zip(low, high, strict=True))
    caption = f"{what}: {view.words}. Black to white {units}; removed with {gain:.3g} times that contrast."
    return Plate(title, caption, tuple(panels), stacked=view.row_step + view.col_step > 2 and _long(panels[0].pixels))


def _long(pixels: Pixels) -> bool:
    return bool(pixels.shape[1] > 2 * pixels.shape[0])


def _paint(values: NDArray[np.float64], valid: NDArray[np.bool_]) -> Pixels:
    painted = (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
    painted = np.broadcast_to(painted, (3, *painted.shape[1:])).transpose(1, 2, 0).copy()
    painted[~valid.all(axis=0)] = NO_DATA
    return painted


def encode(pixels: Pixels, quality: int) -> str:
    """A ``data:`` URI: PNG for small pictures, otherwise JPEG of the given quality."""
    from matplotlib.image import imsave

    small = pixels.shape[0] * pixels.shape[1] <= SMALL
    kind, options = ("png", {}) if small else ("jpeg", {"quality": quality, "subsampling": 0})
    buffer = io.BytesIO()
    imsave(buffer, pixels, format=kind, pil_kwargs=options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"

"""A small picture of a scene before and after, and of what was removed, for the page of a batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..pictures import View, choose_rgb, plate
from ..settings import ReadOptions

#: Longest edge of a panel, in pixels.
EDGE = 128


def quicklook(source: str, output: str, options: ReadOptions, denoised: Sequence[int], path: Path) -> None:
    """Write a JPEG of three panels side by side: before, after, removed.

    Parameters
    ----------
    source, output
        The scene and what was made of it.
    options
        How both are to be understood.
    denoised
        Bands to choose from, zero-based.
    path
        The picture; appears when it is complete.
    """
    from matplotlib.image import imsave

    from ..io import open_cube

    with open_cube(source, options) as before, open_cube(output, options) as after:
        bands, _ = choose_rgb(before.bands, before.tags, denoised)
        rows, cols = before.shape[1:]
        step = -(-max(rows, cols) // EDGE)
        panels = plate("", "", {"before": before, "after": after}, View(before.window(), step, step), bands).panels
    gap = np.full((panels[0].pixels.shape[0], 4, 3), 255, np.uint8)
    joined = np.concatenate([part for p in panels for part in (p.pixels, gap)][:-1], axis=1)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(part, joined, format="jpeg", pil_kwargs={"quality": 80})
    os.replace(part, path)

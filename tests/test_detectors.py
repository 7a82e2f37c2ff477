"""Detectors that a product names are denoised apart: each as if the other were not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tiny

from hsidenoise.bands import Bands
from hsidenoise.cube import Cube
from hsidenoise.device import pick
from hsidenoise.engine import Engine
from hsidenoise.job import prepare
from hsidenoise.model.weights import find, load
from hsidenoise.rows import output_rows


def denoise(cube: Cube) -> tuple[np.ndarray, Any]:
    engine = Engine(*load(find("dct")), pick("cpu"), 1)
    job = prepare(cube, set(range(cube.shape[0])), engine, 0)
    return np.concatenate([rows.block for rows in output_rows(cube, job, engine, cube.dtype, [])], axis=1), job


def scene() -> tuple[np.ndarray, np.ndarray]:
    one = tiny.cube(20, 40, 48, sigma=0.05, seed=1)
    two = tiny.cube(24, 40, 48, sigma=0.08, seed=2)
    two[3, :, 7] += 0.5  # a stripe
    # Bands of the detectors take turns, as where they overlap.
    order = np.argsort(np.concatenate([np.arange(20) * 1.2, np.arange(24) + 5]), kind="stable")
    return np.concatenate([one, two])[order].astype(np.float32), np.array(["VNIR"] * 20 + ["SWIR"] * 24)[order]


def test_each_detector_is_denoised_as_if_alone() -> None:
    pixels, names = scene()
    both = replace(Cube.of(pixels), bands=Bands(len(pixels), detectors=tuple(names)))
    together, job = denoise(both)
    told = job.front.describe()
    assert len(told["ranks"]) == 2
    assert told["rank"] == sum(told["ranks"]) == len(told["eigenvalues"])
    striped = int(np.flatnonzero(names == "SWIR")[3])
    assert told["defects"]["bands"][str(striped)]["striped_columns"] == 1
    assert job.denoised == list(range(len(pixels)))
    for name in ("VNIR", "SWIR"):
        mine = np.flatnonzero(names == name)
        alone, part = denoise(Cube.of(pixels[mine]))
        np.testing.assert_array_equal(together[mine], alone)
        np.testing.assert_array_equal(job.sigma[mine], part.sigma)


def test_bands_of_no_named_detector_go_together() -> None:
    pixels, _ = scene()
    _, job = denoise(Cube.of(pixels))
    assert "ranks" not in job.front.describe()

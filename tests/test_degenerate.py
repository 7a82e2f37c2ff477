"""Scenes at the edge of what a scene can be: a sensible result, or bands left as they were with a reason in one line.

What can be judged is judged by the truth: a denoised band is nearer to it than before, and not a little.
"""

from __future__ import annotations

import json

import degenerate
import numpy as np
import pytest
import tiny
from degenerate import SCENES, Scene
from numpy.typing import NDArray

from hsidenoise.cube import Cube
from hsidenoise.device import pick
from hsidenoise.engine import Engine
from hsidenoise.job import Job, prepare
from hsidenoise.model.weights import find, load
from hsidenoise.run import output_rows

CONSTANT, FEW, EMPTY = "constant", "too few pixels to estimate its noise", "no valid pixel"
#: Why all bands of a scene are left alone, where they are.
LEFT = {
    "constant": CONSTANT,
    "zero": CONSTANT,
    "all_nodata": EMPTY,
    "all_nan": EMPTY,
    "all_inf": EMPTY,
    "one_pixel": CONSTANT,
    "one_band_one_pixel": CONSTANT,
    "one_valid": CONSTANT,
    "one_column": FEW,
    "two_by_two": FEW,
    "three_by_three": FEW,
    "checkerboard": FEW,
    "float64_1e300": EMPTY,
}


@pytest.fixture(scope="module")
def engines(weights) -> dict[str, Engine]:
    return {name: Engine(*load(find(file)), pick("cpu"), 1) for name, file in (("dct", "dct"), ("compact", weights))}


def denoised(scene: Scene, engine: Engine) -> tuple[NDArray, NDArray, Job]:
    """The output, which samples are measurements, and what was decided."""
    cube = Cube.of(scene.pixels, scene.nodata)
    job = prepare(cube, set(range(len(scene.pixels))), engine, 0)
    parts = list(output_rows(cube, job, engine, cube.dtype, []))
    return np.concatenate([p.block for p in parts], 1), np.concatenate([p.valid for p in parts], 1), job


def errors(pixels: NDArray, scene: Scene) -> NDArray[np.float64]:
    """Root mean square distance of each band to the truth, of what can be judged; 0 where nothing can be."""
    scale = float(np.abs(scene.truth).max()) or 1.0
    off = np.where(scene.judged, pixels.astype(np.float64), 0) / scale - np.where(scene.judged, scene.truth, 0) / scale
    return np.sqrt(np.square(off).sum((1, 2)) / np.maximum(scene.judged.sum((1, 2)), 1)) * scale


@pytest.mark.parametrize("model", ["dct", "compact"])
@pytest.mark.parametrize("name", SCENES)
def test_result_is_sensible(name, model, engines, trusting):
    scene = SCENES[name]()
    before = scene.pixels.copy()
    out, valid, job = denoised(scene, engines[model])
    assert scene.pixels.tobytes() == before.tobytes()
    assert (out.dtype, out.shape) == (before.dtype, before.shape)
    assert out[~valid].tobytes() == before[~valid].tobytes()
    assert out[list(job.passed)].tobytes() == before[list(job.passed)].tobytes()
    assert np.isfinite(out[valid]).all()
    if name in LEFT:
        assert set(job.passed.values()) == {LEFT[name]}
    near, far = errors(out, scene), errors(before, scene)
    print(name, model, len(job.denoised), dict(list(job.passed.items())[:3]), near.max(), far.max(), (near / np.maximum(far, 1e-300)).max())

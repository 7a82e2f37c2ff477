"""Training patches of eigen-images are what the front-end makes of a noisy scene."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from hsidenoise.eigenpatches import EigenSampler
from hsidenoise.errors import TrainingError
from hsidenoise.patches import Scene


@pytest.fixture
def sampler():
    scenes = [Scene(str(i), tiny.clean(40, 60, 70, seed=i).astype(np.float32), (slice(0, 40),), "") for i in range(2)]
    return EigenSampler(scenes, bands=4, edge=16, patterns=["g55", "mixture"], seed=3)


def test_shapes_and_unit_noise(sampler):
    batch = sampler.batch(0, 32)
    assert batch.clean.shape == batch.noisy.shape == (32, 4, 16, 16)
    assert batch.back.shape == (32, 32, 4)
    assert batch.rest.shape == (32, 32)
    assert (batch.rest > 0).all()
    noise = batch.noisy - batch.clean
    used = noise.any((2, 3))
    assert noise[used].std() == pytest.approx(1, rel=0.05)
    assert not batch.clean[~used].any()


def test_a_batch_depends_on_its_step_alone(sampler):
    first, again, other = sampler.batch(5, 2), sampler.batch(5, 2), sampler.batch(6, 2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.clean, other.clean)


def test_the_first_images_hold_the_scene(sampler):
    """What the way back makes of the clean images is the bands' own variation, to within their noise."""
    rng = np.random.default_rng(0)
    clean, _, _, back, rest = sampler.patch(rng)
    noise = np.sqrt(rest)  # a share of the bands' noise
    assert np.abs(np.tensordot(back, clean, 1)).max() < 2  # within the range of the scene
    assert (noise > 0).all()


def test_scenes_of_two_bands_are_refused():
    scene = Scene("x", np.zeros((2, 30, 30), np.float32), (slice(0, 2),), "")
    with pytest.raises(TrainingError, match="three"):
        EigenSampler([scene], bands=4, edge=8, patterns=["g15"], seed=0)

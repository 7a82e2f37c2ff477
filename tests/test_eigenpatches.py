"""Training patches of eigen-images are what the front-end makes of a noisy scene."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from hsidenoise.eigenpatches import LEAST, LEFT, EigenSampler, mended
from hsidenoise.errors import TrainingError
from hsidenoise.metrics import psnr
from hsidenoise.model.dct import Dct
from hsidenoise.noise import draw
from hsidenoise.patches import Scene
from hsidenoise.validation import apply


@pytest.fixture
def sampler():
    scenes = [Scene(str(i), tiny.clean(40, 60, 70, seed=i).astype(np.float32), (slice(0, 40),), "") for i in range(2)]
    return EigenSampler(scenes, bands=4, edge=16, patterns=["g55", "mixture"], seed=3)


def test_shapes(sampler):
    batch = sampler.batch(0, 8)
    assert batch.noisy.shape == (8, 4, 16, 16)
    assert batch.clean.shape == (8, 32, 16, 16)
    assert batch.back.shape == (8, 32, 4)
    assert batch.rest.shape == (8, 32)
    assert (batch.rest > 0).all()
    assert not batch.noisy[:, -1].any(axis=(1, 2)).all()  # some scenes have fewer images


def test_noise_has_unit_variance():
    """A flat scene's images are noise alone, the strongest of it."""
    scene = Scene("flat", np.full((12, 80, 80), 0.5, np.float32), (slice(0, 12),), "")
    sampler = EigenSampler([scene], bands=4, edge=32, patterns=["g55"], seed=1)
    shown = sampler.batch(0, 16).noisy
    assert shown[shown.any((2, 3))].std() == pytest.approx(1, rel=0.1)


def test_a_batch_depends_on_its_step_alone(sampler):
    first, again, other = sampler.batch(5, 2), sampler.batch(5, 2), sampler.batch(6, 2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.noisy, other.noisy)


def test_the_images_hold_the_scene(sampler):
    """What the way back makes of the noisy images is nearer to the clean bands than the noisy bands were."""
    nearer = []
    for index in range(20):
        clean, noisy, _, back, rest = sampler.patch(np.random.default_rng(index))
        sigma = np.sqrt((rest - LEAST) / LEFT)
        error = np.sqrt(np.square(np.tensordot(back, noisy, 1) - clean).mean((1, 2)))
        nearer.append(np.median(error / sigma))
    assert np.median(nearer) < 0.7


def test_mixtures_are_mended_first():
    """Dead columns, stripes and impulses are gone from what is learned from; the noise that is told is what is left."""
    scene = Scene("x", tiny.clean(24, 80, 80).astype(np.float32), (slice(0, 24),), "")
    noise = draw("mixture", 24, 80, np.random.default_rng(2))
    noisy = noise.add(scene.cube, np.random.default_rng(3))
    values, told = mended(noisy)
    error = [np.sqrt(np.square(x - scene.cube).mean((1, 2))) for x in (noisy, values)]
    assert np.median(error[0] / noise.sigma) > 1.2
    assert np.median(error[1] / noise.sigma) < 1.02
    np.testing.assert_allclose(np.median(told / noise.sigma), 1, atol=0.1)


def test_validation_mends_mixtures_as_a_run_does():
    clean = tiny.clean(24, 80, 80).astype(np.float32)
    noise = draw("mixture", 24, 80, np.random.default_rng(2))
    noisy = noise.add(clean, np.random.default_rng(3))
    as_it_is, as_in_a_run = (apply(Dct(), noisy, told) for told in (noise.sigma, None))
    assert psnr(clean, as_in_a_run) > psnr(clean, as_it_is) + 3


def test_noise_is_told_as_it_is_estimated(monkeypatch):
    """Texture of one band that looks like noise is told as noise."""
    rng = np.random.default_rng(0)
    cube = tiny.clean(12, 80, 80).astype(np.float32)
    cube[5] += rng.normal(0, 0.2, cube[5].shape).astype(np.float32)
    seen = []
    monkeypatch.setattr("hsidenoise.eigenpatches.cut", lambda noisy, truth, told, *_, **__: seen.append(told))
    sampler = EigenSampler([Scene("x", cube, (slice(0, 12),), "")], bands=4, edge=32, patterns=["g15"], seed=1)
    monkeypatch.setattr(sampler, "_bands", lambda count, rng: np.arange(count))
    for index in range(12):
        sampler.patch(np.random.default_rng(index))
    high = [told[5] > 0.1 for told in seen]
    assert 0 < sum(high) < 12  # in half of the patches the true noise is told


def test_scenes_of_two_bands_are_refused():
    scene = Scene("x", np.zeros((2, 30, 30), np.float32), (slice(0, 2),), "")
    with pytest.raises(TrainingError, match="three"):
        EigenSampler([scene], bands=4, edge=8, patterns=["g15"], seed=0)

"""The weight-free denoiser against slow, obvious references."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from hsidenoise.model.dct import ROOM, Dct, dct_threshold, local_wiener, refine


def slowly(images: np.ndarray, pilots: np.ndarray, rule, step: int) -> np.ndarray:
    """Patch by patch with SciPy's transform; `images` (B, H, W), mirrored until all pixels lie in whole patches."""
    after = 7 + -(np.array(images.shape[1:]) + 6) % step
    pads = ((0, 0), (7, after[0]), (7, after[1]))
    padded, judge = (np.pad(x, pads, mode="reflect") for x in (images, pilots))
    total, share = np.zeros(padded.shape), np.zeros(padded.shape)
    for i in range(0, padded.shape[1] - 7, step):
        for j in range(0, padded.shape[2] - 7, step):
            here = np.s_[:, i : i + 8, j : j + 8]
            pair = (dctn(x[here], axes=(1, 2), norm="ortho") for x in (padded, judge))
            found, weight = rule(*pair)
            total[here] += weight * idctn(found, axes=(1, 2), norm="ortho")
            share[here] += weight
    return (total / share)[:, 7 : 7 + images.shape[1], 7 : 7 + images.shape[2]]


def threshold(c, _):
    kept = np.abs(c) > 2.0
    kept[:, 0, 0] = True
    return kept * c, 1 / kept.sum((1, 2), keepdims=True)


def wiener(c, pilot):
    signal = pilot.reshape(len(c), 64)
    basis = np.linalg.svd(signal[:, 1:])[0]  # left singular vectors: the eigenvectors of the texture's covariance
    power = (basis.T @ signal) ** 2
    power = 0.7 * power + 0.3 * np.outer(power.sum(1), power.sum(0)) / power.sum()
    gain = power / (power + 1.5)
    found = basis @ (gain * (basis.T @ c.reshape(len(c), 64)))
    return found.reshape(c.shape), len(c) / (gain**2).sum()


def random_images(seed: int, *shape: int) -> np.ndarray:
    """Two materials' edges and texture in all images, and noise."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal(shape[1:])
    return 6 * rng.standard_normal((shape[0], 1, 1)) * shared + rng.standard_normal(shape)


@pytest.mark.parametrize(("shape", "step"), [((2, 13, 18), 1), ((3, 14, 17), 2), ((1, 9, 12), 3)])
def test_the_threshold_is_the_textbook_one(shape, step):
    images = random_images(0, *shape)
    found = dct_threshold(torch.from_numpy(images)[None], 2.0, step)[0]
    np.testing.assert_allclose(found, slowly(images, images, threshold, step), atol=1e-9)


@pytest.mark.parametrize(("shape", "step"), [((2, 13, 18), 1), ((3, 14, 17), 2)])
def test_the_wiener_filter_is_that_of_the_local_basis(monkeypatch, shape, step):
    """Every patch in its own basis; that neighbours may share one is the next test's."""
    images, pilots = random_images(1, *shape), random_images(2, *shape)
    own = lambda signal, _: torch.linalg.eigh(signal[..., 1:] @ signal[..., 1:].mT)[1]  # noqa: E731
    monkeypatch.setattr("hsidenoise.model.dct._local_bases", own)
    found = local_wiener(*(torch.from_numpy(x)[None] for x in (images, pilots)), step)[0]
    np.testing.assert_allclose(found, slowly(images, pilots, wiener, step), atol=1e-7)


def test_blocks_make_no_difference(monkeypatch):
    images = torch.from_numpy(random_images(3, 3, 40, 30))[None]
    whole = refine(images, dct_threshold(images, 2.7))
    monkeypatch.setitem(ROOM, "cpu", 3 * 64 * 40)
    torch.testing.assert_close(refine(images, dct_threshold(images, 2.7)), whole)


def test_the_number_of_threads_makes_no_difference(monkeypatch):
    images = torch.from_numpy(random_images(3, 3, 40, 30)).float()[None]
    monkeypatch.setitem(ROOM, "cpu", 3 * 64 * 40)  # several blocks
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with torch.no_grad():
                found.append(Dct()(images)[0])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_forked_process_has_threads_of_its_own():
    """Those of its parent do not exist in it: what waits for them waits forever."""
    script = """
import os, torch
from hsidenoise.model.dct import Dct
torch.set_num_threads(2)
images = torch.ones(1, 3, 64, 64)
with torch.no_grad():
    before = Dct()(images)[0]
    child = os.fork()
    if not child:
        os._exit(0 if torch.equal(before, Dct()(images)[0]) else 3)
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_samples_of_a_batch_do_not_know_each_other():
    images = torch.randn(2, 3, 20, 24, generator=torch.Generator().manual_seed(0)) * 2
    together, _ = Dct()(images)
    torch.testing.assert_close(together[1:], Dct()(images[1:])[0])


def test_images_help_each_other():
    """An edge far below the noise in one image is kept, because another has it."""
    rng = np.random.default_rng(4)
    edge = np.kron(np.indices((6, 6)).sum(0) % 2, np.ones((12, 12)))
    clean = np.stack([30 * edge, 0.7 * edge])
    noisy = torch.from_numpy(clean + rng.standard_normal(clean.shape))[None].float()
    alone, _ = Dct()(noisy[:, 1:])
    together, _ = Dct()(noisy)
    error = [np.square(x.numpy() - clean[1]).mean() for x in (alone[0, 0], together[0, 1])]
    assert error[1] < 0.8 * error[0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 3), (8, 8)])
def test_images_smaller_than_a_patch_work(shape):
    images = torch.randn(1, 2, *shape, generator=torch.Generator().manual_seed(0))
    x, _ = Dct()(images)
    assert x.shape == images.shape
    assert x.isfinite().all()
    torch.testing.assert_close(dct_threshold(images, 0.0), images, atol=1e-5, rtol=0)


def test_the_built_in_model_takes_noise_and_keeps_edges():
    rng = np.random.default_rng(1)
    clean = np.kron(rng.integers(0, 2, (6, 6)), np.ones((16, 16))) * 20.0
    noisy = torch.from_numpy(clean + rng.standard_normal(clean.shape))[None, None].float()
    x, convergence = Dct()(noisy)
    assert np.square(x[0, 0].numpy() - clean).mean() < 0.2
    assert convergence.converged.all()


def test_the_filter_carries_gradients_to_images_and_pilot():
    """But for those through the choice of the basis: one image has none."""
    images, pilot = (torch.randn(1, 1, 10, 11, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(local_wiener, (images, pilot))

"""The weight-free denoiser against slow, obvious references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from hsidenoise.model.dct import Threshold, dct_threshold, dct_wiener


def slowly(image: np.ndarray, pilot: np.ndarray, gain) -> np.ndarray:
    """Patch by patch with SciPy's transform."""
    padded, judge = (np.pad(x, 7, mode="reflect") for x in (image, pilot))
    total, share = np.zeros(padded.shape), np.zeros(padded.shape)
    for i, j in np.ndindex(padded.shape[0] - 7, padded.shape[1] - 7):
        here = np.s_[i : i + 8, j : j + 8]
        factor, weight = gain(dctn(judge[here], norm="ortho"))
        total[here] += weight * idctn(factor * dctn(padded[here], norm="ortho"), norm="ortho")
        share[here] += weight
    return (total / share)[7:-7, 7:-7]


def threshold(c):
    kept = np.abs(c) > 2.0
    kept[0, 0] = True
    return kept, 1 / kept.sum()


def wiener(c):
    gain = c**2 / (c**2 + 1)
    return gain, 1 / max((gain**2).sum(), 1 / 64)


def test_threshold_and_wiener_are_the_textbook_ones():
    rng = np.random.default_rng(0)
    image, pilot = rng.standard_normal((2, 13, 18)) * 3
    both = [torch.from_numpy(x)[None, None] for x in (image, pilot)]
    np.testing.assert_allclose(dct_threshold(both[0], 2.0, mean=True)[0, 0], slowly(image, image, threshold), atol=1e-9)
    np.testing.assert_allclose(dct_wiener(*both)[0, 0], slowly(image, pilot, wiener), atol=1e-9)


def test_images_of_a_batch_do_not_know_each_other():
    images = torch.randn(2, 3, 20, 24, generator=torch.Generator().manual_seed(0)) * 2
    together = dct_threshold(images, 2.7)
    torch.testing.assert_close(together[1, 2], dct_threshold(images[1:, 2:], 2.7)[0, 0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 3), (8, 8)])
def test_images_smaller_than_a_patch_work(shape):
    image = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    assert dct_threshold(image, 2.7, mean=True).shape == image.shape
    torch.testing.assert_close(dct_threshold(image, 0.0), image, atol=1e-5, rtol=0)


def test_the_built_in_model_takes_noise_and_keeps_edges():
    rng = np.random.default_rng(1)
    clean = np.kron(rng.integers(0, 2, (6, 6)), np.ones((16, 16))) * 20.0
    noisy = torch.from_numpy(clean + rng.standard_normal(clean.shape))[None, None].float()
    x, convergence = Threshold()(noisy)
    assert np.square(x[0, 0].numpy() - clean).mean() < 0.2
    assert convergence.converged.all()


def test_the_filter_carries_gradients_to_image_and_pilot():
    image, pilot = (torch.randn(1, 1, 10, 11, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(dct_wiener, (image, pilot))

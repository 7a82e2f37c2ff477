"""The discrete cosine transform of patches, and the weight-free denoiser made of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .deq import Convergence

#: Edge of a DCT patch, in pixels.
EDGE = 8
#: Of unit noise: what is smaller is taken for it.
THRESHOLD = 2.7


class Threshold(nn.Module):
    """The weight-free denoiser of eigen-images, which every network has to beat.

    `dct_threshold`, and with its result as the pilot `dct_wiener`, which brings back a little of what was cut off.

    It answers to what a network answers to (`hsidenoise.model.weights.Model`).
    """

    frontend = "eigen"
    bands = stride = period = 1
    #: Coefficients of the one image in work, and temporaries.
    floats_per_pixel = 6.0 * EDGE**2

    def forward(
        self, y: Tensor, sigma: Tensor | None = None, *, shift: tuple[int, int] = (0, 0)
    ) -> tuple[Tensor, Convergence]:
        """Denoise images (N, 1, H, W) of unit noise; there is nothing to solve and no grid to shift."""
        n = len(y)
        x = dct_wiener(y, dct_threshold(y, THRESHOLD, mean=True))
        one = torch.ones(n, dtype=torch.int64, device=y.device)
        return x, Convergence(one, torch.zeros(n, device=y.device), one.bool())


def dct(size: int) -> Tensor:
    """The orthonormal DCT-II matrix, one basis vector a row; float64."""
    n = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi * (n[None] + 0.5) * n[:, None] / size) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def dct_threshold(images: Tensor, threshold: float, *, mean: bool = False) -> Tensor:
    """Keep what stands out of unit noise: translation-invariant hard thresholding of 8 x 8 DCT coefficients.

    Parameters
    ----------
    images
        (N, B, H, W) with white noise of unit variance; every image is treated by itself.
    threshold
        Coefficients of a smaller magnitude are set to zero.
    mean
        Keep the mean of every patch, whatever its size.

    Returns
    -------
    Tensor
        (N, B, H, W): at each pixel the average of the 64 patches over it, sparse ones weighing more (1 / coefficients
        kept, Guleryuz, "Weighted averaging for denoising with overcomplete dictionaries", IEEE TIP 2007).
    """
    def weigh(c: Tensor) -> tuple[Tensor, Tensor]:
        kept = c.abs() > threshold
        if mean:
            kept[0] = True
        return kept.to(c), 1 / kept.sum(0).clamp_min(1).to(c)

    return _filtered(images, None, weigh)


def dct_wiener(images: Tensor, pilot: Tensor) -> Tensor:
    """Wiener filter of unit noise, its signal taken from a pilot: gain c^2 / (c^2 + 1) on 8 x 8 DCT coefficients.

    Parameters
    ----------
    images
        (N, B, H, W) with white noise of unit variance.
    pilot
        An estimate of the clean images, the same shape.

    Returns
    -------
    Tensor
        (N, B, H, W): averages of patches as in `dct_threshold`, weighted by 1 / (energy of the gains), which is the
        noise they let through (Dabov et al., IEEE TIP 2007).
    """

    def weigh(c: Tensor) -> tuple[Tensor, Tensor]:
        power = c.square()
        gain = power / (power + 1)
        return gain, 1 / gain.square().sum(0).clamp_min(1 / EDGE**2)

    return _filtered(images, pilot, weigh)


def _filtered(images: Tensor, pilot: Tensor | None, weigh: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """Multiply coefficients by a gain, patches by a weight; `weigh` finds both from the pilot or the image itself."""
    shape = images.shape
    border = EDGE - 1
    basis = dct(EDGE).to(images)
    out = []
    # Image by image: the coefficients take 64 times the memory of what they are made of.
    for i, image in enumerate(images.flatten(0, 1)):
        padded = _mirror(image, border)
        c = _analyse(padded, basis)
        gain, weight = weigh(c if pilot is None else _analyse(_mirror(pilot.flatten(0, 1)[i], border), basis))
        total = _synthesise(c * gain * weight, basis, *padded.shape)
        share = F.avg_pool2d(F.pad(weight, (border,) * 4)[None], EDGE, 1)[0] * EDGE**2
        out.append((total / share)[border:-border, border:-border])
    return torch.stack(out).view(shape)


def _analyse(image: Tensor, basis: Tensor) -> Tensor:
    """Coefficients of all patches of (H, W): (64, H - 7, W - 7); rows first, then columns."""
    rows, cols = (n - EDGE + 1 for n in image.shape)
    down = torch.stack([image[i : i + rows] for i in range(EDGE)])
    down = (basis @ down.flatten(1)).view(EDGE, rows, -1)
    across = torch.stack([down[..., j : j + cols] for j in range(EDGE)])
    return (basis @ across.flatten(1)).view(-1, rows, cols)


def _synthesise(c: Tensor, basis: Tensor, height: int, width: int) -> Tensor:
    """The adjoint of `_analyse`."""
    rows, cols = c.shape[1:]
    across = (basis.T @ c.reshape(EDGE, -1)).view(EDGE, EDGE, rows, cols)
    down = c.new_zeros(EDGE, rows, width)
    for j in range(EDGE):
        down[..., j : j + cols] += across[j]
    down = (basis.T @ down.flatten(1)).view(EDGE, rows, width)
    image = c.new_zeros(height, width)
    for i in range(EDGE):
        image[i : i + rows] += down[i]
    return image


def _mirror(image: Tensor, border: int) -> Tensor:
    """(H, W) continued by reflection, as far as it takes."""
    for axis in (0, 1):
        size = image.shape[axis]
        index = torch.arange(-border, size + border, device=image.device) % max(2 * (size - 1), 1)
        image = image.index_select(axis, torch.where(index < size, index, 2 * (size - 1) - index).clamp_min(0))
    return image

"""The discrete cosine transform of patches, and the weight-free denoiser made of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .deq import Convergence
from .gains import SAMPLES, Gains, ThresholdGains, WienerGains
from .grid import reflect
from .threads import side_by_side

#: Edge of a patch, in pixels.
EDGE = math.isqrt(SAMPLES)
#: Of unit noise: a coefficient that is smaller is taken for it.
THRESHOLD = 2.7
#: Noise that the Wiener filter reckons with, as a variance: one, and what is wrong with the pilot.
NOISE = 1.5
#: Share of the signal's power that is modelled as a product of image and frequency; the rest is the pilot's own.
SEPARABLE = 0.3
#: Pixels between patches: of the threshold, and of both passes of the Wiener filter.
STEPS = (2, 2, 1)
#: Eigen-images: patches side by side, along each axis, that share a local basis.
SHARED = 2
#: Coefficients in work at a time, which take many times the memory of what they are made of: on a CPU they are to stay
#: in its cache, on a GPU to give it something to do.
ROOM = {"cpu": 1 << 18, "cuda": 1 << 25}

#: Samples, bands, rows and columns.
Block = tuple[slice, slice, slice, slice]
#: Coefficients (rows, cols, N, B, 64) of patches and of their pilots to filtered ones and weights (..., B or 1).
Rule = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Dct(nn.Module):
    """The weight-free denoiser of eigen-images, which every network has to beat.

    `dct_threshold` finds a pilot in each image by itself, and `refine` brings in what the images have in common.
    It answers to what a network answers to (`hsidenoise.model.weights.Model`).
    """

    frontend = "eigen"
    stride = 1
    #: Images looked at together, at most: the time for local bases grows with their cube.
    bands = 16
    period = SHARED * math.lcm(*STEPS)
    #: Each image, what is made of it, and the coefficients of a strip.
    floats_per_pixel = 8.0 * bands

    def forward(
        self, y: Tensor, sigma: Tensor | None = None, *, shift: tuple[int, int] = (0, 0)
    ) -> tuple[Tensor, Convergence]:
        """Denoise images (N, B, H, W) of unit noise, B up to `bands`; nothing to solve, no grid to shift."""
        n = len(y)
        x = refine(y, dct_threshold(y, THRESHOLD))
        one = torch.ones(n, dtype=torch.int64, device=y.device)
        return x, Convergence(one, torch.zeros(n, device=y.device), one.bool())


def dct(size: int) -> Tensor:
    """The orthonormal DCT-II matrix, one basis vector a row; float64."""
    n = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi * (n[None] + 0.5) * n[:, None] / size) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def dct_threshold(
    images: Tensor, threshold: float, step: int = STEPS[0], learned: ThresholdGains | None = None
) -> Tensor:
    """Keep what stands out of unit noise: hard thresholding of the DCT coefficients of overlapping 8 x 8 patches.

    Parameters
    ----------
    images
        (N, B, H, W) with white noise of unit variance; every image is treated by itself.
    threshold
        Coefficients of a smaller magnitude are set to zero, but for the patch' mean.
    step
        Pixels between patches.
    learned
        Corrects the gains (1 or 0) and weights of patches.

    Returns
    -------
    Tensor
        (N, B, H, W): at each pixel the average of the patches over it, sparse ones weighing more (1 / coefficients
        kept, Guleryuz, "Weighted averaging for denoising with overcomplete dictionaries", IEEE TIP 2007).
    """

    def rule(c: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        kept = c.abs() > threshold
        kept[..., 0] = True
        weight = 1 / kept.sum(-1).to(c)
        if learned is None:
            return c * kept, weight
        gain, factor = learned(c, kept, threshold)
        return c * gain, weight * factor

    return _filtered(images, images, step, rule)


def refine(images: Tensor, pilot: Tensor, learned: Gains | None = None, steps: Sequence[int] = STEPS[1:]) -> Tensor:
    """Two passes of `local_wiener`, the second with the first's result as pilot; (N, B, H, W) of unit noise."""
    passes: tuple[WienerGains | None, ...] = (None, None) if learned is None else (learned.first, learned.second)
    for step, gains in zip(steps, passes, strict=True):
        pilot = local_wiener(images, pilot, step, learned=gains)
    return pilot


def local_wiener(
    images: Tensor, pilot: Tensor, step: int = 1, shared: int = SHARED, learned: WienerGains | None = None
) -> Tensor:
    """Wiener filter of overlapping 8 x 8 patches of all images together, each place in a basis of its own.

    The images are uncorrelated over the scene, but not within a patch: where two materials meet, all images have the
    same edge. There the eigenvectors of the images' covariance (the pilot's coefficients, means left out) gather the
    signal in a few combinations of images; the others are noise. Rotated noise stays white.

    Parameters
    ----------
    images
        (N, B, H, W) with white noise of unit variance.
    pilot
        An estimate of the clean images, the same shape.
    step
        Pixels between patches.
    shared
        Patches side by side, along each axis, that share a basis, an even number; it is learned from every second.
    learned
        Corrects the gains and weights of patches, and has the pilot fill in where gains are low.

    Returns
    -------
    Tensor
        (N, B, H, W): averages of patches as in `dct_threshold`, weighted by 1 / (energy of the gains), which is the
        noise they let through (Dabov et al., IEEE TIP 2007).
    """

    def rule(c: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        basis = _local_bases(signal.detach(), shared)
        c, signal = basis.mT @ c, basis.mT @ signal
        power = signal.square()
        of_image, of_frequency = power.sum(-1, keepdim=True), power.sum(-2, keepdim=True)
        separable = of_image * (of_frequency / of_frequency.sum(-1, keepdim=True).clamp_min(1e-9))
        power = torch.lerp(power, separable, SEPARABLE)
        if learned is None:
            gain = power / (power + NOISE)
            found, factor = c * gain, None
        else:
            gain, trust, factor = learned(c, signal, separable, power / NOISE)
            found = c * gain + signal * trust * (1 - gain)
        weight = 1 / gain.square().mean(-2).sum(-1, keepdim=True).clamp_min(1 / SAMPLES)
        return basis @ found, weight if factor is None else weight * factor

    return _filtered(images, pilot, step, rule, shared)


def _local_bases(signal: Tensor, shared: int) -> Tensor:
    """Eigenvectors over images, one a column, of patches (rows, cols, N, B, 64)."""
    rows, cols, samples = signal.shape[:3]
    texture = signal[::2, ::2, ..., 1:]
    covariance = (texture @ texture.mT).permute(2, 3, 4, 0, 1).flatten(0, 1)
    covariance = F.avg_pool2d(covariance, shared // 2, ceil_mode=True)
    covariance = torch.unflatten(covariance, 0, (samples, -1)).permute(3, 4, 0, 1, 2)
    basis: Tensor = torch.linalg.eigh(covariance).eigenvectors
    return basis.repeat_interleave(shared, 0)[:rows].repeat_interleave(shared, 1)[:, :cols]


def _filtered(images: Tensor, pilot: Tensor, step: int, rule: Rule, together: int = 1) -> Tensor:
    """What `rule` makes of the patches of (N, B, H, W), put together again; in blocks of multiples of `together`."""
    samples, count, height, width = images.shape
    basis = torch.kron(dct(EDGE), dct(EDGE)).to(images)
    same = pilot is images
    images = _mirrored(images, step)
    pilot = images if same else _mirrored(pilot, step)
    rows, cols = ((n - EDGE) // step + 1 for n in images.shape[2:])
    total, share = torch.zeros_like(images), torch.zeros_like(images)
    room = ROOM[images.device.type] // (samples * count * SAMPLES)
    wide = together * max(min(room // together, cols) // together, 1)
    high = together * max(room // (wide * together), 1)

    def work(corner: tuple[int, int]) -> tuple[Block, Tensor, Tensor]:
        top, left = corner
        block = (
            slice(None),
            slice(None),
            slice(top * step, (min(top + high, rows) - 1) * step + EDGE),
            slice(left * step, (min(left + wide, cols) - 1) * step + EDGE),
        )
        c = _coefficients(images[block], basis, step)
        found, weight = rule(c, c if same else _coefficients(pilot[block], basis, step))
        weight = weight[..., None]
        return block, _overlapped(found * weight, basis, step), _overlapped(weight, basis.new_ones(1, SAMPLES), step)

    corners = itertools.product(range(0, rows, high), range(0, cols, wide))
    for block, part, weights in side_by_side(work, corners, images.device):
        total[block] += part
        share[block] += weights
    border = EDGE - 1
    return (total / share)[..., border : border + height, border : border + width]


def _coefficients(images: Tensor, basis: Tensor, step: int) -> Tensor:
    """(N, B, H, W) to the DCT of its patches, (rows, cols, N, B, 64)."""
    patches = images.unfold(2, EDGE, step).unfold(3, EDGE, step).permute(2, 3, 0, 1, 4, 5)
    return patches.flatten(4) @ basis.T


def _overlapped(coefficients: Tensor, basis: Tensor, step: int) -> Tensor:
    """The sum of patches of coefficients (rows, cols, N, B, n) of a basis (n, 64), each in its place, (N, B, H, W)."""
    rows, cols, samples = coefficients.shape[:3]
    columns = basis.T @ coefficients.flatten(2, 3).flatten(0, 1).permute(1, 2, 0)  # (N B, 64, rows cols), for `fold`
    size = ((rows - 1) * step + EDGE, (cols - 1) * step + EDGE)
    return torch.unflatten(F.fold(columns, size, EDGE, stride=step)[:, 0], 0, (samples, -1))


def _mirrored(images: Tensor, step: int) -> Tensor:
    """(N, B, H, W) continued by reflection, as far as it takes, so that all pixels are in as many patches."""
    border = EDGE - 1
    for axis in (2, 3):
        images = reflect(images, border, border + -(images.shape[axis] + 2 * border - EDGE) % step, axis)
    return images

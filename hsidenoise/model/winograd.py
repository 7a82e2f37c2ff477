"""3 x 3 x 3 convolutions in fewer multiplications: Winograd's F(4, 3) along bands, rows and columns.

A tile of 4 x 4 x 4 results takes 216 products for each pair of channels in place of 1728 (Lavin and Gray, "Fast
algorithms for convolutional neural networks", CVPR 2016). The transforms are small matrices, applied to one axis after
the other. Blocks of tiles are worked on side by side, each by one thread, which finds in its cache what it has made.
All products are NumPy's: its OpenBLAS has kernels for small matrices, and takes them by strides, where they lie.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.polynomial.polynomial import polyfromroots, polyvander
from numpy.typing import NDArray
from torch import Tensor

from .threads import blocked, share_out

Array = NDArray[np.float32]
#: Bands, sample, rows and columns of codes in a `Sheet`.
Index = tuple[slice, int, slice, slice]

#: Results, samples that they need, and taps of the kernel along an edge of a tile.
OUT, IN, TAPS = 4, 6, 3
#: Interpolation points besides infinity. Exact in binary, and a tenth of the rounding of the usual 0, 1, -1, 2, -2.
POINTS = np.array([0, 0.75, -0.75, 1.5, -1.5])
#: Multiplications below which OpenBLAS does not share a product among threads of its own.
ALONE = 1 << 18
#: Channels on either side below which the transforms cost more than they save.
FEWEST = 48


def _toom_cook() -> tuple[NDArray[np.float64], ...]:
    """What takes data (6, 6), a kernel (6, 3) and products (4, 6) to products, and to results."""
    others = [np.delete(POINTS, i) for i in range(len(POINTS))]
    data = np.zeros((IN, IN))
    data[:-1, :-1] = [polyfromroots(rest) for rest in others]
    data[-1] = polyfromroots(POINTS)
    kernel = polyvander(POINTS, TAPS - 1) / [[np.prod(p - rest)] for p, rest in zip(POINTS, others, strict=True)]
    result = polyvander(POINTS, OUT - 1).T
    return data, np.vstack([kernel, np.eye(TAPS)[-1]]), np.hstack([result, np.eye(OUT)[:, -1:]])


DATA, KERNEL, RESULT = _toom_cook()
#: What `RESULT` makes a constant of.
FLAT = np.linalg.pinv(RESULT).sum(1).astype(np.float32)
DATA, RESULT = DATA.astype(np.float32), RESULT.astype(np.float32)


def pays(kernel: Tensor) -> bool:
    """Whether `conv3d` is the faster way for this kernel: on a CPU, in float32, without gradients, channels enough."""
    wide = min(kernel.shape[:2]) >= FEWEST
    return wide and blocked(kernel) and not torch.is_autocast_enabled("cpu")


def transform(kernel: Tensor) -> Array:
    """A kernel (C', C, 3, 3, 3) as `conv3d` takes it, (6, 1, 36, C, C')."""
    taps = kernel.double().numpy()
    seen: Array = np.einsum("ai,bj,ck,onijk->abcno", KERNEL, KERNEL, KERNEL, taps, optimize=True).astype(np.float32)
    return seen.reshape(IN, 1, IN**2, *seen.shape[3:])


def transform_bands(kernel: Tensor) -> Array:
    """Matrices for the bands before, here and after, (3, C, C'), as `AlongBands` takes them, (6, 1, 1, C, C')."""
    seen: Array = np.einsum("ai,ino->ano", KERNEL, kernel.double().numpy()).astype(np.float32)
    return seen[:, None, None]


class Scratch(threading.local):
    """Memory, for each thread its own, that block after block goes through: it stays in the cache."""

    def __init__(self) -> None:
        self._held: dict[str, Array] = {}
        self._blocks: dict[tuple[int, ...], AlongBands] = {}

    def take(self, name: str, *shape: int) -> Array:
        """An array of this shape, whose values are whatever was left there."""
        count = math.prod(shape)
        held = self._held.get(name)
        if held is None or len(held) < count:
            self._blocks.clear()  # of the smaller one
            held = self._held[name] = np.empty(count, np.float32)
        return held[:count].reshape(shape)

    def block(self, bands: int, cells: int, kernel: Array) -> AlongBands:
        """For so many bands and cells; its views are made once."""
        key = (bands, cells, *kernel.shape)
        if key not in self._blocks:
            self._blocks[key] = AlongBands(self.take, bands, cells, kernel.shape)
        return self._blocks[key]


#: Of all blocks.
SCRATCH = Scratch()


class AlongBands:
    """The convolution of a block of cells along bands, each of its P points with a kernel of its own.

    Parameters
    ----------
    take
        Gives memory.
    bands, cells
        B and n.
    shape
        Of the transformed kernel, (6, 1, P, C, C').
    """

    def __init__(self, take: Callable[..., Array], bands: int, cells: int, shape: tuple[int, ...]) -> None:
        *_, points, channels, found = shape
        groups = -(-bands // OUT)
        whole = take("planes", OUT * groups + IN - OUT, cells * points * channels)
        self._edges = whole[0], whole[1 + bands :]
        #: What is convolved, (B, n, P, C): to be filled.
        self.data = whole[1 : 1 + bands].reshape(bands, cells, points, channels)
        spectra = take("spectra", IN, groups, cells * points * channels)
        products = take("products", IN, groups, cells * points * found)
        results = take("planes", groups, OUT, cells * points * found)
        band, one = whole.strides
        cubes = as_strided(whole, (groups, IN, cells * points * channels), (OUT * band, band, one))
        self._before = _pieces(cubes), _pieces(spectra.swapaxes(0, 1))
        self._after = _pieces(products.swapaxes(0, 1)), _pieces(results)
        rows = _divisor(groups * cells, ALONE // (channels * found))
        self._spectra = spectra.reshape(IN, -1, rows, points, channels).swapaxes(2, 3)
        self._products = products.reshape(IN, -1, rows, points, found).swapaxes(2, 3)
        #: The convolution, (B, n, P, C'): there until `data` is filled again.
        self.results = results.reshape(groups * OUT, cells, points, found)[:bands]

    def convolve(self, kernel: Array) -> Array:
        """From `data` to `results`."""
        for edge in self._edges:
            edge.fill(0)
        np.matmul(DATA, self._before[0], out=self._before[1])
        np.matmul(self._spectra, kernel, out=self._products)
        np.matmul(RESULT, self._after[0], out=self._after[1])
        return self.results


def _divisor(count: int, most: int) -> int:
    """The largest divisor of `count` that is no more than `most`, or 1."""
    return next(i for i in range(max(min(most, count), 1), 0, -1) if count % i == 0)


def _pieces(x: Array) -> Array:
    """(groups, m, n) in pieces along n that are products for one thread, (groups, pieces, m, piece)."""
    groups, m, n = x.shape
    piece = _divisor(n, ALONE // IN**2)
    return as_strided(x, (groups, n // piece, m, piece), (x.strides[0], piece * x.strides[2], *x.strides[1:]))


class Sheet:
    """Codes as `conv3d` takes them: in a border of zeros, with room for whole tiles.

    Parameters
    ----------
    like
        Codes of the same number of bands, samples, rows and columns, (B, N, h, w, any).
    channels
        C.
    """

    def __init__(self, like: Tensor, channels: int) -> None:
        bands, n, self.height, self.width, _ = like.shape
        rows, cols = -(-self.height // OUT), -(-self.width // OUT)
        self.whole = like.new_zeros(bands, n, OUT * rows + 2, OUT * cols + 2, channels)
        #: The codes themselves, (B, N, h, w, C).
        self.inner = self.whole[:, :, 1 : self.height + 1, 1 : self.width + 1]
        whole = self.whole.numpy()
        band, sample, line, pixel, one = whole.strides
        apart = (band, sample, OUT * line, OUT * pixel)
        #: What each tile needs, (B, N, rows, cols, 6, 6 C): they overlap.
        self.needed = as_strided(whole, (bands, n, rows, cols, IN, IN * channels), (*apart, line, one))
        #: What each tile is, (B, N, rows, cols, 4, 4, C).
        self.tiles = as_strided(
            whole[:, :, 1:, 1:], (bands, n, rows, cols, OUT, OUT, channels), (*apart, line, pixel, one)
        )

    def trim(self) -> Sheet:
        """Zero again what whole tiles reach over the edge of the codes."""
        whole = self.whole.numpy()
        whole[:, :, self.height + 1 :] = whole[:, :, :, self.width + 1 :] = 0
        return self


def conv3d(x: Sheet, kernel: Array, bias: Tensor, out: Sheet, after: Callable[[Index], None]) -> None:
    """The convolution of a sheet with a transformed kernel, written to `out` block by block. Carries no gradient.

    `after` is called with the index of the codes (B, rows, cols, C) that a block has just written, in its thread:
    whoever goes on with them then finds them in the cache.
    """
    bands, samples, rows, cols, *_ = x.tiles.shape
    channels, found = kernel.shape[-2:]
    wide = max(ALONE // (-(-bands // OUT) * max(channels, found) ** 2), 1)
    offset = np.outer(FLAT, bias.detach().numpy())

    def work(block: tuple[int, int, int]) -> None:
        sample, row, start = block
        stop = min(start + wide, cols)
        tiles = stop - start
        along = SCRATCH.block(bands, tiles, kernel)
        lines = SCRATCH.take("lines", bands, tiles, IN, IN, channels)
        np.matmul(DATA, x.needed[:, sample, row, start:stop], out=lines.reshape(bands, tiles, IN, -1))
        np.matmul(DATA, lines, out=along.data.reshape(lines.shape))
        lines = SCRATCH.take("lines", bands, tiles, OUT, IN, found)
        planes = along.convolve(kernel).reshape(bands, tiles, IN, -1)
        np.matmul(RESULT, planes, out=lines.reshape(bands, tiles, OUT, -1))
        lines += offset
        np.matmul(RESULT, lines, out=out.tiles[:, sample, row, start:stop])
        after((slice(None), sample, slice(OUT * row, OUT * (row + 1)), slice(OUT * start, OUT * stop)))

    share_out(work, itertools.product(range(samples), range(rows), range(0, cols, wide)), x.whole.device)


class Enhancement:
    """Net2 and the soft threshold before it (as `hsidenoise.model.layers.Enhancement`), without gradients.

    Parameters
    ----------
    convolutions
        Kernel (C', C, 3, 3, 3) and bias (C',) of each: difference, squeeze, expand.
    """

    def __init__(self, convolutions: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._convolutions = [(transform(kernel), bias) for kernel, bias in convolutions]
        self._sheets: list[Sheet] = []

    def __call__(self, h: Tensor, theta: Tensor, gate_bias: Tensor | None) -> Tensor:
        """Codes (N, B, h, w, C) to new ones, in the memory of the old; all calls are for codes of one shape."""
        codes, theta = h.transpose(0, 1), _bands_first(theta, h.shape[1])
        if not self._sheets:
            self._sheets = [Sheet(codes, len(bias)) for _, bias in self._convolutions]
        detail, squeezed, x = self._sheets  # the gate, in its turn, takes the place of x
        difference, squeeze, expand = self._convolutions

        def threshold(band: int) -> None:
            old, limit = codes[band], theta[band]
            torch.sub(old, torch.clamp(old, -limit, limit), out=x.inner[band])

        def add(here: Index) -> None:
            detail.inner[here].relu_().add_(x.inner[here])

        def rectify(here: Index) -> None:
            squeezed.inner[here].relu_()

        def gate(here: Index) -> None:
            part = x.inner[here]
            if gate_bias is not None:
                part.add_(gate_bias.transpose(0, 1)[here[:2]])
            torch.mul(part.sigmoid_(), detail.inner[here], out=codes[here])

        share_out(threshold, range(len(codes)), h.device)
        conv3d(x.trim(), *difference, detail, add)
        conv3d(detail.trim(), *squeeze, squeezed, rectify)
        conv3d(squeezed.trim(), *expand, x, gate)
        return h


def _bands_first(x: Tensor, bands: int) -> Tensor:
    """What is one per atom, (C,), or one per sample, band and atom, (N, B, 1, 1, C), bands first."""
    return x.transpose(0, 1) if x.dim() > 1 else x.expand(bands, 1, 1, 1, -1)

"""The dictionaries of DECSC on the code grid: analysis (W) and synthesis, for images laid out space to depth.

Pixel (i s + a, j s + b) of a band sits at grid cell (i, j), so a strided k x k convolution becomes one over m x m
cells, m = ceil(k / s), and its transpose too. Nothing is approximated by that. A dictionary is made *ready* once, for
many uses.
"""

from __future__ import annotations

import itertools
import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import Blocks
from .layers import conv2d, conv3d
from .threads import blocked
from .winograd import transform_bands


class Dictionaries(Protocol):
    """Ways to apply a 2-D dictionary over all bands (shared) and a 3-D one over three (local).

    Shapes: kernels (atoms, C, k, k), C the bands or 3; images (N, B, h, w, s^2), the pixels of a cell in the order that
    `arrange` gives them; codes (N, h', w', shared) and (N, B, h', w', local).
    """

    def arrange(self, cells: Tensor) -> Tensor:
        """An image whose cells are row by row."""

    def restore(self, cells: Tensor) -> Tensor:
        """The inverse of `arrange`."""

    def shared(self, kernel: Tensor, *, transpose: bool = False) -> Tensor:
        """A 2-D dictionary made ready, for analysis or (`transpose`) for synthesis."""

    def local(self, kernel: Tensor, *, transpose: bool = False) -> Tensor:
        """A 3-D dictionary made ready."""

    def analyse_shared(self, image: Tensor, ready: Tensor, codes: Tensor) -> Tensor:
        """Codes + W_K image: shared codes."""

    def take_shared(self, image: Tensor, codes: Tensor, ready: Tensor) -> Tensor:
        """Image - K codes, the shared ones; in the memory of the image where no gradient needs that."""

    def analyse_local(self, image: Tensor, ready: Tensor, codes: Tensor) -> Tensor:
        """Codes + W_D image: local codes."""

    def spread(self, shared: Tensor, ready_shared: Tensor, local: Tensor, ready_local: Tensor) -> Tensor:
        """K and D: both codes to the image they explain together."""


def dictionaries(size: int, stride: int) -> Dictionaries:
    """The faster way for atoms of this size: dense where they fill their cells, else gathered."""
    return Gathered(size, stride) if size % stride else Dense(stride)


class Dense:
    """Convolutions of cells, each s^2 channels: atoms are padded to whole cells.

    Synthesis too is a convolution, with the kernel flipped: several times faster on a CPU than the libraries'
    transposed ones.
    """

    def __init__(self, stride: int) -> None:
        self.stride = stride

    def arrange(self, cells: Tensor) -> Tensor:
        """As they are."""
        return cells

    def restore(self, cells: Tensor) -> Tensor:
        """As they are."""
        return cells

    def shared(self, kernel: Tensor, *, transpose: bool = False) -> Tensor:
        """(shared, B s^2, m, m), or (B s^2, shared, m, m)."""
        ready = pack_kernel(kernel, self.stride).flatten(1, 2)
        return transpose_kernel(ready) if transpose else ready

    def local(self, kernel: Tensor, *, transpose: bool = False) -> Tensor:
        """(local, s^2, 3, m, m), or (s^2, local, 3, m, m)."""
        ready = pack_kernel(kernel, self.stride).transpose(1, 2)
        return transpose_kernel(ready) if transpose else ready

    def analyse_shared(self, image: Tensor, ready: Tensor, codes: Tensor) -> Tensor:
        """See `Dictionaries`."""
        return conv2d(image.permute(0, 2, 3, 1, 4).flatten(3), ready).add_(codes)

    def take_shared(self, image: Tensor, codes: Tensor, ready: Tensor) -> Tensor:
        """See `Dictionaries`."""
        return image - self._spread_shared(codes, ready)

    def _spread_shared(self, codes: Tensor, ready: Tensor) -> Tensor:
        out = conv2d(codes, ready, padding=ready.shape[-1] - 1)
        return out.reshape(*out.shape[:3], -1, self.stride**2).permute(0, 3, 1, 2, 4)

    def analyse_local(self, image: Tensor, ready: Tensor, codes: Tensor) -> Tensor:
        """See `Dictionaries`."""
        return conv3d(image, ready, padding=(1, 0, 0)).add_(codes)

    def spread(self, shared: Tensor, ready_shared: Tensor, local: Tensor, ready_local: Tensor) -> Tensor:
        """See `Dictionaries`."""
        edge = ready_local.shape[-1] - 1
        return conv3d(local, ready_local, padding=(1, edge, edge)) + self._spread_shared(shared, ready_shared)


class Gathered:
    """Matrix products with the k^2 pixels under each atom: half the work of `Dense` where 9 pixels would pad to 14.

    A patch is gathered cell by cell, what it covers of each: the pixels of an atom stand in that order too. Of the last
    cell it covers the first `left` rows, columns, or both. The pixels of a cell are kept so that each of these is a
    single run: first what is in those columns only, then in both, then in those rows only, then the rest.
    """

    def __init__(self, size: int, stride: int) -> None:
        self.size, self.stride = size, stride
        spans = [min(stride, size - start) for start in range(0, size, stride)]
        left = spans[-1]
        cell = torch.arange(stride**2).view(stride, stride)
        runs = (cell[left:, :left], cell[:left, :left], cell[:left, left:], cell[left:, left:])
        #: Where in its cell, row by row, each pixel is.
        self.order = torch.cat([run.flatten() for run in runs])
        #: Row and column of each cell that an atom covers, the run of its pixels there, and their place in the atom.
        self.parts: list[tuple[int, int, slice, slice]] = []
        first = 0
        for (i, p), (j, q) in itertools.product(enumerate(spans), repeat=2):
            start = (stride - p) * left
            self.parts.append((i, j, slice(start, start + p * q), slice(first, first + p * q)))
            first += p * q
        self.edge = len(spans) - 1
        self._blocks = Blocks(self.parts)
        row, col = self.order // stride, self.order % stride
        #: Where in the atom, row by row, each of its pixels is.
        self.pixels = torch.cat([(row[run] + i * stride) * size + col[run] + j * stride for i, j, run, _ in self.parts])

    def arrange(self, cells: Tensor) -> Tensor:
        """See `Dictionaries`."""
        return cells[..., self.order.to(cells.device)]

    def restore(self, cells: Tensor) -> Tensor:
        """See `Dictionaries`."""
        return cells[..., self.order.argsort().to(cells.device)]

    def shared(self, kernel: Tensor, *, transpose: bool = False) -> Tensor:
        """(B k^2, shared), or (shared, B, k^2)."""
        ready = self._ordered(kernel)
        return ready if transpose else ready.flatten(1).T

    def local(self, kernel: Tensor, *, transpose: bool = False) -> Tensor:
        """One matrix for each of three bands, (3, 1, k^2, local), or (3, 1, local, k^2); for `Blocks` transformed."""
        ready = self._ordered(kernel).permute(1, 2, 0)[:, None]
        ready = ready.flip(0).transpose(2, 3) if transpose else ready
        return torch.from_numpy(transform_bands(ready[:, 0])) if blocked(ready) else ready

    def analyse_shared(self, image: Tensor, ready: Tensor, codes: Tensor) -> Tensor:
        """See `Dictionaries`."""
        if blocked(codes):
            return self._blocks.analyse_shared(image, ready, codes)
        patches = self._gather(image.permute(0, 2, 3, 1, 4), (1, 2)).flatten(3)
        return torch.addmm(codes.flatten(0, 2), patches.flatten(0, 2), ready).view(codes.shape)

    def take_shared(self, image: Tensor, codes: Tensor, ready: Tensor) -> Tensor:
        """See `Dictionaries`."""
        if blocked(codes):
            return self._blocks.take_shared(image, codes, ready)
        return image - self._scatter(self._patches(codes, ready))

    def analyse_local(self, image: Tensor, ready: Tensor, codes: Tensor) -> Tensor:
        """See `Dictionaries`."""
        if blocked(codes):
            return self._blocks.analyse_local(image, ready, codes)
        return _add_three_bands(codes.clone(), self._gather(image), ready)

    def spread(self, shared: Tensor, ready_shared: Tensor, local: Tensor, ready_local: Tensor) -> Tensor:
        """See `Dictionaries`."""
        if blocked(local):
            return self._blocks.spread(shared, ready_shared, local, ready_local)
        return self._scatter(_add_three_bands(self._patches(shared, ready_shared).contiguous(), local, ready_local))

    def _patches(self, codes: Tensor, ready: Tensor) -> Tensor:
        """The pixels under each atom, (N, B, h', w', k^2)."""
        n, rows, cols, _ = codes.shape
        if torch.is_grad_enabled():  # a single product is cheaper to go back through
            return (codes @ ready.flatten(1)).view(n, rows, cols, -1, self.size**2).permute(0, 3, 1, 2, 4)
        bands = ready.shape[1]
        patches = torch.bmm(codes.reshape(1, n * rows * cols, -1).expand(bands, -1, -1), ready.transpose(0, 1))
        return patches.view(bands, n, rows, cols, -1).transpose(0, 1)

    def _ordered(self, kernel: Tensor) -> Tensor:
        return kernel.flatten(2)[:, :, self.pixels.to(kernel.device)]

    def _gather(self, image: Tensor, axes: tuple[int, int] = (2, 3)) -> Tensor:
        """Cells (..., h, ..., w, ..., s^2), h and w at `axes`, to the pixels under each atom: (..., k^2)."""
        shape = list(image.shape[:-1])
        for axis in axes:
            shape[axis] -= self.edge
        out = image.new_empty(*shape, self.size**2)
        for i, j, run, place in self.parts:
            here = image[..., run].narrow(axes[0], i, shape[axes[0]]).narrow(axes[1], j, shape[axes[1]])
            out[..., place] = here
        return out

    def _scatter(self, patches: Tensor) -> Tensor:
        """The adjoint of `_gather`."""
        rows, cols = patches.shape[2:4]
        first = self.stride**2  # the cell an atom begins in, which it fills: the others reach over it
        image = F.pad(patches[..., :first], (0, 0, 0, self.edge, 0, self.edge))
        for i, j, run, place in self.parts[1:]:
            here = image[:, :, i : i + rows, j : j + cols, run]
            here += patches[..., place]
        return image


def _add_three_bands(out: Tensor, x: Tensor, ready: Tensor) -> Tensor:
    """Add to `out`, (N, B, h, w, C'), (N, B, h, w, C) times a matrix for each of the bands before, here and after."""
    n, bands, h, w, channels = x.shape
    x, total = x.reshape(n, -1, channels), out.view(n, bands * h * w, -1)
    before, here, after = ready.expand(-1, n, -1, -1)
    total.baddbmm_(x, here)
    if bands > 1:
        total[:, h * w :].baddbmm_(x[:, : -h * w], before)
        total[:, : -h * w].baddbmm_(x[:, h * w :], after)
    return out


def pack_kernel(kernel: Tensor, stride: int) -> Tensor:
    """A dictionary (atoms, C, k, k) for `stride`, as dense kernels (atoms, C, s^2, m, m) on the code grid."""
    atoms, channels, size, _ = kernel.shape
    m = math.ceil(size / stride)
    spare = m * stride - size
    kernel = F.pad(kernel, (0, spare, 0, spare))
    kernel = kernel.view(atoms, channels, m, stride, m, stride).permute(0, 1, 3, 5, 2, 4)
    return kernel.reshape(atoms, channels, stride * stride, m, m)


def transpose_kernel(kernel: Tensor) -> Tensor:
    """The dense kernel with which a convolution is the adjoint of `kernel`'s: (a, b, ...) to (b, a, ...), flipped."""
    return kernel.flip(*range(2, kernel.dim())).transpose(0, 1)

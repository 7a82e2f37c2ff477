"""Images on the code grid: padded by reflection, cut into space-to-depth cells, and put together again."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Grid(NamedTuple):
    """Where the codes of an image sit: every pixel is covered by as many atoms as an inner one.

    Parameters
    ----------
    rows, cols
        Codes along each axis.
    top, left
        Pixels the image is padded by, by reflection, before the first code.
    height, width
        Of the image.
    cell_rows, cell_cols
        Space-to-depth cells along each axis.
    stride
        Pixels between codes.
    """

    rows: int
    cols: int
    top: int
    left: int
    height: int
    width: int
    cell_rows: int
    cell_cols: int
    stride: int

    @classmethod
    def over(cls, height: int, width: int, kernel: int, stride: int, shift: tuple[int, int]) -> Grid:
        """The grid for an image of this size, moved by `shift` pixels."""
        k, s = kernel, stride
        top, left = (k - s + d % s for d in shift)
        rows, cols = math.ceil((top + height) / s), math.ceil((left + width) / s)
        extra = math.ceil(k / s) - 1
        return cls(rows, cols, top, left, height, width, rows + extra, cols + extra, s)

    def to_cells(self, image: Tensor) -> Tensor:
        """(N, B, H, W) to (N, B, cell_rows, cell_cols, s^2)."""
        s = self.stride
        bottom = self.cell_rows * s - self.top - self.height
        right = self.cell_cols * s - self.left - self.width
        padded = reflect(image, self.top, bottom, axis=2)
        padded = reflect(padded, self.left, right, axis=3)
        n, b = image.shape[:2]
        cells = padded.view(n, b, self.cell_rows, s, self.cell_cols, s).permute(0, 1, 2, 4, 3, 5)
        return cells.reshape(n, b, self.cell_rows, self.cell_cols, s * s)

    def from_cells(self, cells: Tensor) -> Tensor:
        """The inverse of `to_cells`, cropped to the image."""
        n, b = cells.shape[:2]
        s = self.stride
        image = cells.reshape(n, b, self.cell_rows, self.cell_cols, s, s).permute(0, 1, 2, 4, 3, 5)
        image = image.reshape(n, b, self.cell_rows * s, self.cell_cols * s)
        return image[:, :, self.top : self.top + self.height, self.left : self.left + self.width]


def reflect(x: Tensor, before: int, after: int, axis: int) -> Tensor:
    """Mirror `x` beyond both ends of `axis`, as often as it takes: one pixel is enough."""
    size = x.shape[axis]
    index = torch.arange(-before, size + after, device=x.device)
    period = max(2 * (size - 1), 1)
    index = index.remainder(period)
    index = torch.where(index < size, index, period - index)
    return x.index_select(axis, index)

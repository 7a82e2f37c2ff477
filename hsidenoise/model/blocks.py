"""Dictionaries without gradients on a CPU: blocks of codes side by side, each by one thread.

They compute what `hsidenoise.model.dictionary.Gathered` does, and along bands in half its multiplications
(`hsidenoise.model.winograd`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .threads import share_out
from .winograd import SCRATCH, Array

#: Rows of codes to a product with the shared dictionary: what is gathered for them stays in the cache.
ROWS = 4


class Blocks:
    """Analysis and synthesis; arguments and results are those of `hsidenoise.model.dictionary.Gathered`, in float32.

    Parameters
    ----------
    parts
        Row and column of each cell that an atom covers, the run of its pixels there, and their place in the atom.
        The first cell is covered whole.
    """

    def __init__(self, parts: Sequence[tuple[int, int, slice, slice]]) -> None:
        self.parts = parts
        self.pixels: int = parts[-1][3].stop

    def analyse_shared(self, image: Tensor, ready: Tensor, codes: Tensor) -> Tensor:
        """Codes + W_K image."""
        n, rows, cols, atoms = codes.shape
        cells, out = image.permute(0, 2, 3, 1, 4).numpy(), torch.empty_like(codes)

        def work(at: tuple[int, slice]) -> None:
            high = at[1].stop - at[1].start
            patches = SCRATCH.take("patches", high, cols, cells.shape[3], self.pixels)
            self._gather(cells[at[0], at[1].start :], patches)
            flat = torch.from_numpy(patches).view(high * cols, -1)
            torch.addmm(codes[at].reshape(-1, atoms), flat, ready, out=out[at].view(-1, atoms))

        share_out(work, _runs(n, rows, ROWS), codes.device)
        return out

    def analyse_local(self, image: Tensor, ready: Tensor, codes: Tensor) -> Tensor:
        """Codes + W_D image."""
        n, bands, rows, cols, _ = codes.shape
        kernel, out = ready.numpy(), torch.empty_like(codes)
        cells, old, new = (x.permute(0, 2, 3, 1, 4).numpy() for x in (image, codes, out))

        def work(at: tuple[int, slice]) -> None:
            block = SCRATCH.block(bands, (at[1].stop - at[1].start) * cols, kernel)
            self._gather(cells[at[0], at[1].start :], _in_rows(block.data, cols))
            new[at] = _in_rows(block.convolve(kernel), cols)
            new[at] += old[at]

        share_out(work, _runs(n, rows, 1), codes.device)
        return out

    def take_shared(self, image: Tensor, codes: Tensor, ready: Tensor) -> Tensor:
        """Image - K codes, in the memory of the image."""
        n, rows, cols, atoms = codes.shape
        codes = codes.reshape(n, rows * cols, atoms)

        def work(at: tuple[int, int]) -> None:
            found, here = (codes[at[0]] @ ready[:, at[1]]).view(rows, cols, -1), image[at]
            for i, j, run, place in self.parts:
                here[i : i + rows, j : j + cols, run] -= found[..., place]

        share_out(work, itertools.product(range(n), range(image.shape[1])), codes.device)
        return image

    def spread(self, shared: Tensor, ready_shared: Tensor, local: Tensor, ready_local: Tensor) -> Tensor:
        """K and D: both codes to the image they explain together."""
        n, bands, rows, cols, _ = local.shape
        kernel, patches = ready_local.numpy(), local.new_empty(n, bands, rows, cols, self.pixels)
        codes, out = (x.permute(0, 2, 3, 1, 4).numpy() for x in (local, patches))

        def work(at: tuple[int, slice]) -> None:
            block = SCRATCH.block(bands, (at[1].stop - at[1].start) * cols, kernel)
            _in_rows(block.data, cols)[...] = codes[at]
            out[at] = _in_rows(block.convolve(kernel), cols)

        share_out(work, _runs(n, rows, 1), local.device)
        edge = self.parts[-1][0]
        image = local.new_empty(n, bands, rows + edge, cols + edge, self.parts[0][2].stop)
        shared = shared.reshape(n, rows * cols, -1)

        def put_together(at: tuple[int, int]) -> None:
            under, here = patches[at], image[at]
            under.view(rows * cols, -1).addmm_(shared[at[0]], ready_shared[:, at[1]])
            here[rows:] = here[:, cols:] = 0
            for i, j, run, place in self.parts:
                there, found = here[i : i + rows, j : j + cols, run], under[..., place]
                there.add_(found) if i or j else there.copy_(found)

        share_out(put_together, itertools.product(range(n), range(bands)), local.device)
        return image

    def _gather(self, cells: Array, patches: Array) -> None:
        """Cells (h + m - 1 or more, w + m - 1, B, s^2) to the pixels under each atom, (h, w, B, k^2)."""
        rows, cols = patches.shape[:2]
        for i, j, run, place in self.parts:
            patches[..., place] = cells[i : i + rows, j : j + cols, :, run]


def _in_rows(block: Array, cols: int) -> Array:
    """(B, h w, 1, C) as (h, w, B, C)."""
    bands, _, _, channels = block.shape
    return block.reshape(bands, -1, cols, channels).transpose(1, 2, 0, 3)


def _runs(samples: int, rows: int, most: int) -> Iterator[tuple[int, slice]]:
    """Rows of codes, sample by sample, at most so many at a time: about as many for each thread."""
    threads = torch.get_num_threads()
    count = min(-(-rows // (most * threads)) * threads, rows)
    stops = [rows * (i + 1) // count for i in range(count)]
    return ((n, slice(a, b)) for n in range(samples) for a, b in itertools.pairwise([0, *stops]))

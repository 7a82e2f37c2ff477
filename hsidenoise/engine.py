"""A network on its device, applied to arrays: the one place where tiles meet torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .cube import Cube
from .device import free_memory, is_oom
from .errors import SceneTooLargeError, UsageError, WeightsError
from .model.weights import Card, Model
from .tiles import StripBuffer, plan, smallest_size

#: Pixels blended around a seam.
FEATHER = 8
#: Bytes that the plan and the record of one tile take.
_PLAN_BYTES = 600


class Engine:
    """A network that is ready to run.

    Parameters
    ----------
    model, card
        From `hsidenoise.model.weights.load`.
    device
        A `torch.device`.
    shifts
        Shifts of the code grid to average over.
    """

    def __init__(self, model: Model, card: Card, device: Any, shifts: int) -> None:
        self.model, self.card, self.device = model.to(device), card, device
        stride = model.stride
        if not 1 <= shifts <= stride * stride:
            raise UsageError(f"--shifts {shifts}: this model's grid allows 1 to {stride * stride}")
        # Shifts spread evenly over the diagonal of the grid's cell, then over the rest of it.
        cells = [(i, j) for i in range(stride) for j in range(stride)]
        order = sorted(cells, key=lambda cell: ((cell[1] - cell[0]) % stride, cell))
        self.shifts = [order[n * stride // shifts if shifts <= stride else n] for n in range(shifts)]

    def patch(
        self, values: NDArray[np.float32], sigma: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Denoise one network input (bands, rows, cols) whose band noise is `sigma`; and its convergence."""
        try:
            with torch.inference_mode():
                y = torch.from_numpy(values)[None].to(self.device)
                noise = torch.from_numpy(sigma)[None].to(self.device)
                total = torch.zeros_like(y)
                found = []
                for shift in self.shifts:
                    x, convergence = self.model(y, noise, shift=shift)
                    total += x
                    found.append(convergence)
                total /= len(self.shifts)
                if not all(c.residual.isfinite().all() for c in found):
                    raise WeightsError(f"{self.card.name}: the network's answer is no number; its weights are damaged")
                return total[0].cpu().numpy(), {
                    "iterations": int(max(c.evaluations.max() for c in found)),
                    "residual": float(max(c.residual.max() for c in found)),
                    "converged": bool(all(c.converged.all() for c in found)),
                }
        except RuntimeError as error:
            if not is_oom(error):
                raise
            if max(values.shape[1:]) < 2 * self.smallest:
                rows, cols = values.shape[1:]
                raise SceneTooLargeError(
                    f"out of memory on {self.device} with a tile of {rows} x {cols} pixels, the smallest this model "
                    "allows; free some memory, or choose another --device or a smaller --model"
                ) from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return self._halved(values, sigma)

    @property
    def align(self) -> int:
        """Period of the network in pixels: code grid times attention window."""
        return int(self.model.period)

    @property
    def smallest(self) -> int:
        """Smallest tile edge that works."""
        return smallest_size(self.card.halo, FEATHER, self.align)

    def _halved(
        self, values: NDArray[np.float32], sigma: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The same in tiles of half the size, for when memory ran out."""
        rows, cols = values.shape[1:]
        size = max(max(rows, cols) // 2, self.smallest)
        tiles = plan(rows, cols, size, halo=self.card.halo, feather=FEATHER, align=self.align)
        buffer = StripBuffer(tiles, len(values))
        whole = np.empty_like(values)
        records = []
        for tile in tiles:
            a, b, c, d = tile.source
            part, record = self.patch(np.ascontiguousarray(values[:, a:b, c:d]), sigma)
            records.append(record)
            done = buffer.add(tile, tile.crop(part))
            if done is not None:
                start, block = done
                whole[:, start : start + block.shape[1]] = block
        return whole, merge(records)


def automatic_tile(cube: Cube, engine: Engine) -> int:
    """The tile edge that reads the fewest pixels twice, among those that fit a third of the memory that is free.

    On a CPU not above 320, or what it takes for two to cover 512 pixels: larger ones save little, and their codes take
    memory.
    """
    bands, rows, cols = cube.shape
    budget = free_memory(engine.device) // 3
    smallest = max(engine.smallest, 64)
    two = 256 + engine.card.halo + FEATHER + engine.align
    largest = 512 if engine.device.type == "cuda" else max(320, two)
    sizes = [smallest, *reversed(range(largest, smallest, -16))]

    def fits(size: int) -> bool:
        return size == smallest or tile_bytes(engine, bands, size) + 8 * bands * size * cols <= budget

    def work(size: int) -> int:
        tiles = plan(rows, cols, size, halo=engine.card.halo, feather=FEATHER, align=engine.align)
        return len(tiles) * tiles[0].shape[0] * tiles[0].shape[1]

    return min(filter(fits, sizes), key=work)


def check_memory(cube: Cube, engine: Engine, tile: int = 0) -> None:
    """Refuse a scene of which not even the smallest tiles fit this machine, before any pixel is read.

    A header is believed as far as the file is as long as it says, and a sparse file can be as long as anybody likes.

    Raises
    ------
    SceneTooLargeError
        A strip of tiles across the scene, with the plan of all tiles, takes more memory than is free.
    """
    bands, rows, cols = cube.shape
    edge = tile or max(engine.smallest, 64)
    step = max(edge - 2 * engine.card.halo - FEATHER, 1)
    need = 8 * bands * min(rows, edge) * cols + _PLAN_BYTES * (-(-rows // step)) * (-(-cols // step))
    if engine.device.type == "cpu":
        need += tile_bytes(engine, bands, min(edge, max(rows, cols)))
    free = free_memory(torch.device("cpu"))
    if need > free:
        raise SceneTooLargeError(
            f"{cube.name}: {bands} bands of {rows} x {cols} pixels take {need / 2**30:.1f} GiB of memory even in tiles "
            f"of {edge} pixels, and {free / 2**30:.1f} GiB are free; free some, or cut the scene into smaller parts "
            "(gdal_translate -srcwin)"
        )


def tile_bytes(engine: Engine, bands: int, size: int) -> int:
    """Memory one tile needs: codes, the solver's history and temporaries, and the scene's bands three times over."""
    return int(4 * size * size * (engine.model.floats_per_pixel + 3 * bands))


def merge(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The worst of several convergence records."""
    return {
        "iterations": max(f["iterations"] for f in found),
        "residual": max(f["residual"] for f in found),
        "converged": all(f["converged"] for f in found),
    }

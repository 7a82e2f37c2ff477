"""3 x 3 x 3 convolutions in fewer multiplications: Winograd's F(4 x 4, 3 x 3) over rows and columns, direct over bands.

A tile of 4 x 4 results takes 36 products for each pair of channels in place of 144 (Lavin and Gray, "Fast algorithms
for convolutional neural networks", CVPR 2016). The transforms are small matrices, applied to rows and columns at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Results, and samples that they need, along the edge of a tile.
OUT, IN = 4, 6
#: Bytes of a transformed strip: temporaries of this size stay in the cache, larger ones are mapped afresh every time.
STRIP = 5 << 19
#: Channels on either side below which the transforms cost more than they save.
FEWEST = 48

# The interpolation points are 0, 1, -1, 2, -2 and infinity.
KERNEL = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
) / 24  # fmt: skip
DATA = torch.tensor(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
     [0, 4, 0, -5, 0, 1]], dtype=torch.float64,
)  # fmt: skip
RESULT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)


#: Rows and columns at once, as matrices for flattened tiles.
DATA_2D, RESULT_2D = torch.kron(DATA, DATA).float(), torch.kron(RESULT, RESULT).float()


def pays(kernel: Tensor) -> bool:
    """Whether `conv3d` is the faster way for this kernel: on a CPU, in float32, with channels enough."""
    wide = min(kernel.shape[:2]) >= FEWEST
    return wide and kernel.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def transform(kernel: Tensor) -> Tensor:
    """A kernel (C', C, 3, 3, 3) as `conv3d` takes it, (3, 36, C, C')."""
    seen = torch.einsum("ai,bj,ocdij->dabco", KERNEL, KERNEL, kernel.double())
    return seen.flatten(1, 2).float().contiguous()


def conv3d(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """The convolution of (N, B, h, w, C), zero beyond its edges, with a transformed kernel: (N, B, h, w, C').

    Carries no gradient.
    """
    n, b, h, w, channels = x.shape
    found = kernel.shape[-1]
    rows, cols = -(-h // OUT), -(-w // OUT)
    padded = _bordered(x.transpose(0, 1), OUT * rows + 2, OUT * cols + 2)
    out = x.new_empty(b, n, rows, OUT, cols, OUT, found)
    row = b * n * cols  # tiles of all bands
    strips = -(-rows * row * IN**2 * max(channels, found) * x.element_size() // STRIP)
    height = -(-rows // min(strips, rows))
    # Strip by strip in the same memory, which stays in the cache.
    seen = x.new_empty(IN**2 * row * height * channels)
    spectra = x.new_empty(IN**2 * (row + 2 * n * cols) * height * channels)
    products = x.new_empty(IN**2 * row * height * found)
    results = x.new_empty(OUT**2 * row * height * found)
    for top in range(0, rows, height):
        tiles = padded[:, :, OUT * top : OUT * (top + height) + IN - OUT].unfold(2, IN, OUT).unfold(3, IN, OUT)
        here = tiles.shape[2]
        m = n * here * cols
        tiles = tiles.permute(5, 6, 0, 1, 2, 3, 4)
        gathered = seen[: tiles.numel()].view(tiles.shape).copy_(tiles)
        z = spectra[: IN**2 * (b + 2) * m * channels].view(IN**2, (b + 2) * m, channels)
        z[:, :m] = z[:, -m:] = 0  # a band before the first, and one after the last
        torch.mm(DATA_2D, gathered.view(IN**2, -1), out=z.view(IN**2, -1)[:, m * channels : -m * channels])
        y = products[: IN**2 * b * m * found].view(IN**2, b * m, found)
        torch.bmm(z[:, m:-m], kernel[1], out=y)
        y.baddbmm_(z[:, : -2 * m], kernel[0]).baddbmm_(z[:, 2 * m :], kernel[2])
        done = torch.mm(RESULT_2D, y.view(IN**2, -1), out=results[: OUT**2 * b * m * found].view(OUT**2, -1))
        done = done.view(OUT, OUT, b, n, here, cols, found).permute(2, 3, 4, 0, 5, 1, 6)
        torch.add(done, bias, out=out[:, :, top : top + here])
    return out.view(b, n, OUT * rows, OUT * cols, found)[:, :, :h, :w].transpose(0, 1)


def _bordered(x: Tensor, height: int, width: int) -> Tensor:
    """(B, N, h, w, C) with a border of zeros: one row and column before, the rest after."""
    b, n, h, w, channels = x.shape
    out = x.new_empty(b, n, height, width, channels)
    out[:, :, 0] = out[:, :, h + 1 :] = 0
    out[:, :, :, 0] = out[:, :, :, w + 1 :] = 0
    out[:, :, 1 : h + 1, 1 : w + 1] = x
    return out

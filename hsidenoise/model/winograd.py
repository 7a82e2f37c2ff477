"""3 x 3 x 3 convolutions in fewer multiplications: Winograd's F(4 x 4, 3 x 3) over rows and columns, direct over bands.

A tile of 4 x 4 results takes 36 products for each pair of channels in place of 144 (Lavin and Gray, "Fast algorithms
for convolutional neural networks", CVPR 2016). The transforms are small matrices, applied to rows and columns at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

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
    """Whether `conv3d` is the faster way for this kernel: on a CPU, in float32, without gradients, channels enough."""
    wide = min(kernel.shape[:2]) >= FEWEST
    plain = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
    return wide and kernel.device.type == "cpu" and not plain


def transform(kernel: Tensor) -> Tensor:
    """A kernel (C', C, 3, 3, 3) as `conv3d` takes it, (3, 36, C, C')."""
    seen = torch.einsum("ai,bj,ocdij->dabco", KERNEL, KERNEL, kernel.double())
    return seen.flatten(1, 2).float().contiguous()


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
        #: The same by tiles, (B, N, rows of tiles, OUT, columns of tiles, OUT, C).
        self.tiles = torch.unflatten(torch.unflatten(self.whole[:, :, 1:-1, 1:-1], 3, (cols, OUT)), 2, (rows, OUT))

    def trim(self) -> Sheet:
        """Zero again what whole tiles reach over the edge of the codes."""
        self.whole[:, :, self.height + 1 :] = 0
        self.whole[:, :, :, self.width + 1 :] = 0
        return self


class Scratch:
    """Memory that strip after strip, and call after call, goes through: it stays in the cache."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int, like: Tensor) -> Tensor:
        """A tensor of this shape, whose values are whatever was left there."""
        count = math.prod(shape)
        held = self._held.get(name)
        if held is None or len(held) < count:
            held = self._held[name] = like.new_empty(count)
        return held[:count].view(shape)


def conv3d(x: Sheet, kernel: Tensor, bias: Tensor, out: Sheet, scratch: Scratch) -> Iterator[tuple[Tensor, slice]]:
    """The convolution of a sheet with a transformed kernel, written to `out` strip by strip. Carries no gradient.

    Yields
    ------
    codes, rows
        What was just written, a view (B, N, rows, w, C'), and which rows it is: whoever goes on with it now finds it
        in the cache.
    """
    b, n, rows, _, cols, _, channels = x.tiles.shape
    found = kernel.shape[-1]
    row = b * n * cols  # tiles of all bands
    strips = -(-rows * row * IN**2 * max(channels, found) * x.whole.element_size() // STRIP)
    height = -(-rows // min(strips, rows))
    for top in range(0, rows, height):
        tiles = x.whole[:, :, OUT * top : OUT * (top + height) + IN - OUT].unfold(2, IN, OUT).unfold(3, IN, OUT)
        here = tiles.shape[2]
        m = n * here * cols
        tiles = tiles.permute(5, 6, 0, 1, 2, 3, 4)
        gathered = scratch.take("gathered", *tiles.shape, like=bias).copy_(tiles)
        z = scratch.take("spectra", IN**2, (b + 2) * m, channels, like=bias)
        z[:, :m] = z[:, -m:] = 0  # a band before the first, and one after the last
        torch.mm(DATA_2D, gathered.view(IN**2, -1), out=z.view(IN**2, -1)[:, m * channels : -m * channels])
        y = scratch.take("products", IN**2, b * m, found, like=bias)
        torch.bmm(z[:, m:-m], kernel[1], out=y)
        y.baddbmm_(z[:, : -2 * m], kernel[0]).baddbmm_(z[:, 2 * m :], kernel[2])
        done = scratch.take("results", OUT**2, b * m * found, like=bias)
        done = torch.mm(RESULT_2D, y.view(IN**2, -1), out=done).view(OUT, OUT, b, n, here, cols, found)
        torch.add(done.permute(2, 3, 4, 0, 5, 1, 6), bias, out=out.tiles[:, :, top : top + here])
        span = slice(OUT * top, min(OUT * (top + here), x.height))
        yield out.inner[:, :, span], span


class Enhancement:
    """Net2 and the soft threshold before it (as `hsidenoise.model.layers.Enhancement`), without gradients.

    Parameters
    ----------
    convolutions
        Kernel (C', C, 3, 3, 3) and bias (C',) of each: difference, squeeze, expand.
    """

    def __init__(self, convolutions: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._convolutions = [(transform(kernel), bias) for kernel, bias in convolutions]
        self._scratch = Scratch()
        self._sheets: list[Sheet] = []

    def __call__(self, h: Tensor, theta: Tensor, gate_bias: Tensor | None) -> Tensor:
        """Codes (N, B, h, w, C) to new ones, in the memory of the old; all calls are for codes of one shape."""
        codes, theta = h.transpose(0, 1), _bands_first(theta)
        if not self._sheets:
            self._sheets = [Sheet(codes, len(bias)) for _, bias in self._convolutions]
        detail, squeezed, x = self._sheets  # the gate, in its turn, takes the place of x
        difference, squeeze, expand = self._convolutions
        torch.sub(codes, torch.clamp(codes, -theta, theta, out=x.inner), out=x.inner)
        for part, rows in conv3d(x.trim(), *difference, detail, self._scratch):
            part.relu_().add_(x.inner[:, :, rows])
        for part, _ in conv3d(detail.trim(), *squeeze, squeezed, self._scratch):
            part.relu_()
        for part, rows in conv3d(squeezed.trim(), *expand, x, self._scratch):
            gate = part if gate_bias is None else part.add_(_bands_first(gate_bias))
            torch.mul(gate.sigmoid_(), detail.inner[:, :, rows], out=codes[:, :, rows])
        return h


def _bands_first(x: Tensor) -> Tensor:
    """What is one per atom, (C,), as it is; what is one per sample, band and atom, (N, B, 1, 1, C), bands first."""
    return x.transpose(0, 1) if x.dim() > 1 else x

"""The parts of DECSC: convolutions, the Swin stage, the detail enhancement.

Layouts are channels-last throughout, (N, h, w, C) and (N, B, h, w, C): that is what oneDNN and cuDNN are fastest on,
and tokens for attention come out without a copy.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import winograd
from .threads import blocked, in_parts, share_out

#: Bytes of the queries, keys and values of a strip.
STRIP = 1 << 22


def conv2d(x: Tensor, kernel: Tensor, padding: int = 0) -> Tensor:
    """(N, h, w, C) with (C', C, m, m) to (N, h', w', C')."""
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    return F.conv2d(x.permute(0, 3, 1, 2), kernel, padding=padding).permute(0, 2, 3, 1)


def conv3d(x: Tensor, kernel: Tensor, bias: Tensor | None = None, padding: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
    """(N, B, h, w, C) with (C', C, d, m, m) to (N, B', h', w', C')."""
    kernel = kernel.contiguous(memory_format=torch.channels_last_3d)
    x = x.permute(0, 4, 1, 2, 3)
    if x.device.type == "cpu" and len(x) == 1 and x[..., 0].numel() <= 20480:
        # PyTorch keeps a lone small sample from oneDNN, and is eight times slower then; two samples go through it.
        return F.conv3d(x.expand(2, -1, -1, -1, -1), kernel, bias, padding=padding)[:1].permute(0, 2, 3, 4, 1)
    return F.conv3d(x, kernel, bias, padding=padding).permute(0, 2, 3, 4, 1)


def soft_threshold(x: Tensor, theta: Tensor) -> Tensor:
    """Shrink towards zero by `theta` >= 0, one threshold per atom (last axis)."""
    if blocked(x):
        out = torch.empty_like(x)
        in_parts(lambda a, t, b: torch.sub(a, torch.clamp(a, -t, t), out=b), x, theta.expand_as(x), out)
        return out
    clipped = torch.clamp(x, -theta, theta)
    return x - clipped if torch.is_grad_enabled() else torch.sub(x, clipped, out=clipped)


class SwinBlock(nn.Module):
    """Windowed self-attention and an MLP, both residual (Liu et al., ICCV 2021), on codes (N, h, w, C).

    Windows that reach over the border are padded, and what was padded is masked out of the attention; a shifted
    block starts its windows `shift` cells earlier. Every size h, w >= 1 works. With `squash` it looks at asinh of the
    codes: normalised as they are, a code of hundreds would hide all others of its cell.
    """

    def __init__(self, dim: int, heads: int, window: int, shift: int, ratio: int, squash: bool = False) -> None:
        super().__init__()
        self.heads, self.window, self.shift, self.squash = heads, window, shift, squash
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))
        self.position = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.position, std=0.02)
        cell = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        offset = cell[:, None] - cell[None] + window - 1
        self.register_buffer("relative", offset[..., 0] * (2 * window - 1) + offset[..., 1], persistent=False)

    relative: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(N, h, w, C) to the same."""
        if not blocked(x):
            return self.rows(x, self.shift)
        # In strips, side by side: what a whole image takes is mapped afresh every time, for longer than it is used.
        n, h, w, c = x.shape
        windows = -(-(h + self.shift) // self.window)
        row = n * w * self.window * 3 * c * x.element_size()  # of windows: queries, keys and values
        strips = max(torch.get_num_threads(), windows * row // STRIP)
        height = -(-windows // strips) * self.window
        stops = [*range(height - self.shift, h, height), h]
        out = torch.empty_like(x)

        def strip(span: tuple[int, int]) -> None:
            start, stop = span
            out[:, start:stop] = self.rows(x[:, start:stop], 0 if start else self.shift)

        share_out(strip, zip([0, *stops], stops, strict=False), x.device)
        return out

    def rows(self, x: Tensor, above: int) -> Tensor:
        """The same for whole rows of windows, of which the first begins `above` cells before the first row."""
        x = x + self.attend(self.norm1(torch.asinh(x) if self.squash else x), above)
        mixed: Tensor = self.mlp(self.norm2(torch.asinh(x) if self.squash else x))
        return x + mixed

    def attend(self, x: Tensor, above: int) -> Tensor:
        """Multi-head attention within windows, of which the first begins `above` cells before the first row."""
        n, h, w, c = x.shape
        size, heads = self.window, self.heads
        after_h, after_w = -(h + above) % size, -(w + self.shift) % size
        pads = (0, 0, self.shift, after_w, above, after_h)
        padded = F.pad(self.qkv(x), pads)
        rows, cols = padded.shape[1] // size, padded.shape[2] // size
        tokens = padded.view(n, rows, size, cols, size, 3, heads, c // heads).permute(5, 0, 1, 3, 6, 2, 4, 7)
        q, k, v = tokens.reshape(3, n * rows * cols, heads, size * size, c // heads)
        bias = self.position[self.relative].permute(2, 0, 1) + _outside(h, w, pads, size, x.device)
        bias = bias.to(q.dtype)
        scores = torch.matmul(q * (c // heads) ** -0.5, k.transpose(-1, -2))
        scores = scores.view(n, rows * cols, heads, size * size, size * size) + bias
        out = torch.matmul(scores.softmax(-1).view(-1, heads, size * size, size * size), v)
        out = out.view(n, rows, cols, heads, size, size, c // heads).permute(0, 1, 4, 2, 5, 3, 6)
        out = out.reshape(n, rows * size, cols * size, c)
        mixed: Tensor = self.proj(out[:, above : above + h, self.shift : self.shift + w])
        return mixed


@functools.lru_cache(maxsize=64)
def _outside(h: int, w: int, pads: tuple[int, ...], size: int, device: torch.device) -> Tensor:
    """What is added to the scores of codes that are padding: (windows, 1, 1, size^2). The same at each evaluation."""
    inside = F.pad(torch.ones(h, w, device=device), pads[2:])
    rows, cols = inside.shape[0] // size, inside.shape[1] // size
    inside = inside.view(rows, size, cols, size).transpose(1, 2).reshape(rows * cols, 1, 1, size * size)
    return torch.where(inside > 0, 0.0, -1e4)


class DifferenceConv(nn.Module):
    """The sum of five 3 x 3 x 3 convolutions, evaluated as one.

    Plain, central difference (each tap against the centre), and differences across columns, rows and bands (a 3 x 3
    kernel on the one side, its negative on the other). All are linear in the input, so their kernels add up.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        cube = (channels, channels, 3, 3, 3)
        face = (channels, channels, 3, 3)
        self.plain = nn.Parameter(torch.empty(cube))
        self.central = nn.Parameter(torch.empty(cube))
        self.columns = nn.Parameter(torch.empty(face))
        self.rows = nn.Parameter(torch.empty(face))
        self.bands = nn.Parameter(torch.empty(face))
        self.bias = nn.Parameter(torch.zeros(5, channels))
        for kernel in (self.plain, self.central, self.columns, self.rows, self.bands):
            nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))

    def kernel(self) -> tuple[Tensor, Tensor]:
        """The merged kernel (C, C, 3, 3, 3), axes band, row, column, and bias (C,)."""
        total = self.plain + self.central
        centre = self.central.sum((2, 3, 4), keepdim=True)
        total = total - F.pad(centre, (1, 1, 1, 1, 1, 1))
        for face, axis in ((self.columns, 4), (self.rows, 3), (self.bands, 2)):
            total = total + torch.stack([face, torch.zeros_like(face), -face], axis)
        return total, self.bias.sum(0)


class Enhancement(Protocol):
    """Net2 and the soft threshold before it, made ready for many calls."""

    def __call__(self, h: Tensor, theta: Tensor, gate_bias: Tensor | None) -> Tensor:
        """Codes (N, B, h, w, C) to the same.

        `h` is the caller's no longer. Thresholds are (C,) or (N, B, 1, 1, C), and so is what is added before the
        gate's sigmoid.
        """


class DetailEnhancement(nn.Module):
    """Net2: difference convolution, then a voxel-wise gate, on codes (N, B, h, w, C); or on asinh of them."""

    def __init__(self, channels: int, squash: bool = False) -> None:
        super().__init__()
        self.squash = squash
        self.difference = DifferenceConv(channels)
        self.squeeze = nn.Conv3d(channels, channels // 2, 3, padding=1)
        self.expand = nn.Conv3d(channels // 2, channels, 3, padding=1)

    def ready(self) -> Enhancement:
        """By the faster way."""
        assert self.squeeze.bias is not None
        assert self.expand.bias is not None
        convolutions = (
            self.difference.kernel(),
            (self.squeeze.weight, self.squeeze.bias),
            (self.expand.weight, self.expand.bias),
        )
        if not self.squash and winograd.pays(self.squeeze.weight):
            return winograd.Enhancement(convolutions)
        return functools.partial(self.enhance, convolutions)

    def enhance(
        self, convolutions: Sequence[tuple[Tensor, Tensor]], h: Tensor, theta: Tensor, gate_bias: Tensor | None = None
    ) -> Tensor:
        """See `Enhancement`; `convolutions` are kernels and biases, the differences' merged."""
        difference, squeeze, expand = convolutions
        x = soft_threshold(h, theta)
        detail = F.relu_(conv3d(torch.asinh(x) if self.squash else x, *difference))
        x = x + detail if torch.is_grad_enabled() else detail.add_(x)
        gate = conv3d(F.relu_(conv3d(torch.asinh(x) if self.squash else x, *squeeze)), *expand).float()
        if gate_bias is not None:
            gate = gate.add_(gate_bias)
        gate = gate.sigmoid_()
        return x * gate if torch.is_grad_enabled() else gate.mul_(x)

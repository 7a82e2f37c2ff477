"""One evaluation of f: ours against the textbook form, and the compact network against the paper's.

    python benchmarks/step.py [--edge 288 256 128] [--whole 512] [--runs 5]

The textbook form is what the paper's equations suggest in PyTorch: strided and transposed 3-D convolutions, five
difference convolutions one after the other. Both run here in turn, with the same weights, and must agree. Times are
medians of this run on this machine; only their ratio means something elsewhere.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from torch import Tensor

from hsidenoise.model import layers
from hsidenoise.model.decsc import DECSC, build
from hsidenoise.model.grid import Grid
from hsidenoise.model.weights import find, load
from hsidenoise.validation import apply


def textbook_step(network: DECSC, y: Tensor, s: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 20 with PyTorch's own operators; `y` (N, B, H, W) padded, `s` (N, C, h, w), `h` (N, C, B, h, w)."""
    stride = network.config.stride
    wide = {"stride": (1, stride, stride), "padding": (1, 0, 0)}
    shared, local = network.shared, network.local

    def pad(x: Tensor) -> Tensor:
        return F.pad(x, (0, y.shape[-1] - x.shape[-1], 0, y.shape[-2] - x.shape[-2]))

    def crop(x: Tensor) -> Tensor:
        return x[..., : s.shape[-2], : s.shape[-1]]

    def synthesis(s: Tensor, h: Tensor) -> Tensor:
        flat = F.conv_transpose2d(s, shared["synthesis"], stride=stride)
        deep = F.conv_transpose3d(h, local["synthesis"][:, None], **wide)
        return pad(flat + deep[:, 0])

    s = s + crop(F.conv2d(y - synthesis(s, h), shared["analysis"], stride=stride))
    s = layers.soft_threshold(s.permute(0, 2, 3, 1), network.theta_shared)
    s = network.net1(s).permute(0, 3, 1, 2)
    h = h + crop(F.conv3d((y - synthesis(s, h))[:, None], local["analysis"][:, None], **wide))
    theta = network.theta_local[:, None, None, None]
    h = torch.sign(h) * F.relu(h.abs() - theta)
    return s, detail_enhancement(network.net2, h)


def detail_enhancement(net: layers.DetailEnhancement, h: Tensor) -> Tensor:
    """Net2 with five convolutions."""
    conv = net.difference
    central = conv.central - F.pad(conv.central.sum((2, 3, 4), keepdim=True), (1,) * 6)
    kernels = [conv.plain, central]
    for face, axis in ((conv.columns, 4), (conv.rows, 3), (conv.bands, 2)):
        kernels.append(torch.stack([face, torch.zeros_like(face), -face], axis))
    total = sum(F.conv3d(h, k, b, padding=1) for k, b in zip(kernels, conv.bias, strict=True))
    h = h + F.relu(total)
    return h * torch.sigmoid(net.expand(F.relu(net.squeeze(h))))


def medians(runs: int, *functions) -> list[float]:
    """Median seconds of each function, called in turn."""
    times = [[] for _ in functions]
    for turn in range(runs + 1):
        for i, function in enumerate(functions):
            time.sleep(0.02)  # OpenMP's threads spin for 10 ms after their work: not at the next one's cost
            began = time.perf_counter()
            function()
            if turn:  # the first turn warms up
                times[i].append(time.perf_counter() - began)
    return [statistics.median(t) for t in times]


@torch.inference_mode()
def compare_step(edge: int, runs: int) -> None:
    """The paper's network, ours against the textbook's form."""
    network = build("decsc", "kaiming").eval()
    c = network.config
    grid = Grid.over(edge, edge, c.kernel, c.stride, (0, 0))
    raster = grid.to_cells(torch.rand(1, c.bands, edge, edge))
    cells = network.dictionaries.arrange(raster)
    s = torch.randn(1, grid.rows, grid.cols, c.shared)
    h = torch.randn(1, c.bands, grid.rows, grid.cols, c.local)
    padded = raster.unflatten(-1, (c.stride, c.stride)).permute(0, 1, 2, 4, 3, 5)
    padded = padded.reshape(1, c.bands, grid.cell_rows * c.stride, -1)
    s2, h2 = s.permute(0, 3, 1, 2).contiguous(), h.permute(0, 4, 1, 2, 3).contiguous()
    packed = network.pack(torch.zeros(1, c.bands))
    ours, theirs = network.step(cells, (s, h), packed), textbook_step(network, padded, s2, h2)
    error = max(
        float((a - b).abs().max() / b.abs().max())
        for a, b in ((ours[0], theirs[0].permute(0, 2, 3, 1)), (ours[1], theirs[1].permute(0, 2, 3, 4, 1)))
    )
    a, b = medians(runs, lambda: network.step(cells, (s, h), packed), lambda: textbook_step(network, padded, s2, h2))
    print(f"f, paper-size, {edge} x {edge} x {c.bands}: ours {a:.3f} s, textbook {b:.3f} s, "
          f"{b / a:.1f} times faster, largest relative difference {error:.1e}")  # fmt: skip


@torch.inference_mode()
def compare_networks(edge: int, runs: int) -> None:
    """A whole scene of six materials with noise: compact against paper-size, each until it is at rest or gives up."""
    rng = np.random.default_rng(0)
    maps = np.stack([gaussian_filter(rng.standard_normal((edge, edge)), 3) for _ in range(6)])
    spectra = gaussian_filter1d(rng.random((31, 6)), 4, axis=0)
    scene = np.tensordot(spectra, maps - maps.min(), 1)
    noisy = (scene / scene.max() + 0.1 * rng.standard_normal(scene.shape)).astype(np.float32)
    sigma = np.full(31, 0.1)
    compact, paper = (load(find(name))[0].eval() for name in ("compact", "decsc"))
    a, b = medians(runs, lambda: apply(compact, noisy, sigma), lambda: apply(paper, noisy, sigma))
    print(f"whole scene, {edge} x {edge} x 31: compact {a:.1f} s, paper-size {b:.1f} s, {b / a:.1f} times faster")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=int, nargs="+", default=[288, 256, 128], help="tiles of 512 pixels are of 288")
    parser.add_argument("--whole", type=int, default=512)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    torch.manual_seed(0)
    for edge in given.edge:
        compare_step(edge, given.runs)
    if given.whole:
        compare_networks(given.whole, 3)

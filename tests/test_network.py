"""The network against slow, obvious references; its size; every shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hsidenoise.model import layers, winograd
from hsidenoise.model.atoms import dct_atoms
from hsidenoise.model.configs import CONFIGS, Config
from hsidenoise.model.dct import dct
from hsidenoise.model.decsc import DECSC, build
from hsidenoise.model.dictionary import Dense, Gathered
from hsidenoise.model.grid import Grid, reflect

TINY = Config(bands=5, shared=8, local=4, kernel=9, stride=4, depth=2, heads=2, evaluations=4)


def tiny(**changes) -> DECSC:
    torch.manual_seed(0)
    return DECSC(replace(TINY, **changes), "kaiming").eval()


def test_the_papers_configuration_has_the_papers_parameters():
    assert sum(p.numel() for p in build("decsc").parameters()) == 4_295_152


def test_the_compact_network_is_at_least_three_times_smaller():
    assert 3 * sum(p.numel() for p in build("compact").parameters()) < 4_295_152


def test_soft_threshold():
    x = torch.tensor([[-3.0, -0.5, 0.0, 0.5, 3.0]])
    theta = torch.full((5,), 1.0)
    assert layers.soft_threshold(x, theta).tolist() == [[-2, 0, 0, 0, 2]]


def cells_of(image, stride):
    """(N, B, H, W) space to depth."""
    n, b, height, width = image.shape
    cells = image.view(n, b, height // stride, stride, width // stride, stride).permute(0, 1, 2, 4, 3, 5)
    return cells.reshape(n, b, height // stride, width // stride, stride**2)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("way", [Dense, Gathered])
@pytest.mark.parametrize(("size", "stride"), [(9, 7), (9, 4), (8, 4), (9, 3), (5, 5), (3, 1)])
def test_dictionaries_are_strided_convolutions_and_their_transposes(way, size, stride, gradients):
    """Against PyTorch's own operators; the local ones in three dimensions. Without gradients there are other ways."""
    with torch.set_grad_enabled(gradients):
        check_dictionaries(way, size, stride)


def check_dictionaries(way, size, stride):
    torch.manual_seed(1)
    apply = way(stride) if way is Dense else way(size, stride)
    atoms, bands, rows, cols = 6, 4, 4, 5
    m = -(-size // stride)
    image = torch.randn(2, bands, stride * (rows + m - 1), stride * (cols + m - 1))
    cells = apply.arrange(cells_of(image, stride))
    assert torch.equal(apply.restore(cells), cells_of(image, stride))
    height, width = (stride * (n - 1) + size for n in (rows, cols))  # what the atoms reach
    beyond = (0, image.shape[-1] - width, 0, image.shape[-2] - height)
    close = {"rtol": 1e-4, "atol": 1e-4}

    kernel = torch.randn(atoms, bands, size, size)
    expected = F.conv2d(image[..., :height, :width], kernel, stride=stride)
    codes = torch.randn(2, atoms, rows, cols)
    found = apply.analyse_shared(cells, apply.shared(kernel), codes.permute(0, 2, 3, 1))
    torch.testing.assert_close(found.permute(0, 3, 1, 2), codes + expected, **close)
    expected = F.pad(F.conv_transpose2d(codes, kernel, stride=stride), beyond)
    taken = apply.take_shared(cells.clone(), codes.permute(0, 2, 3, 1), apply.shared(kernel, transpose=True))
    torch.testing.assert_close(apply.restore(taken), cells_of(image - expected, stride), **close)

    kernel = torch.randn(atoms, 3, size, size)
    strides = {"stride": (1, stride, stride), "padding": (1, 0, 0)}
    expected = F.conv3d(image[:, None, :, :height, :width], kernel[:, None], **strides)
    codes = torch.randn(2, bands, rows, cols, atoms)
    found = apply.analyse_local(cells, apply.local(kernel), codes)
    torch.testing.assert_close(found, codes + expected.permute(0, 2, 3, 4, 1), **close)
    expected = F.conv_transpose3d(codes.permute(0, 4, 1, 2, 3), kernel[:, None], **strides)[:, 0]
    flat, atom = torch.randn(2, rows, cols, 1), torch.randn(1, bands, size, size)
    expected = expected + F.conv_transpose2d(flat.permute(0, 3, 1, 2), atom, stride=stride)
    found = apply.spread(flat, apply.shared(atom, transpose=True), codes, apply.local(kernel, transpose=True))
    torch.testing.assert_close(apply.restore(found), cells_of(F.pad(expected, beyond), stride), **close)


@pytest.mark.parametrize(
    "shape", [(1, 31, 20, 20, 48, 96), (2, 5, 7, 9, 50, 48), (3, 2, 4, 13, 48, 48), (2, 1, 1, 1, 48, 48)]
)
def test_winograd_is_the_convolution(shape):
    torch.manual_seed(4)
    *size, channels, found = shape
    x, bias = torch.randn(*size, channels), torch.randn(found)
    kernel = torch.randn(found, channels, 3, 3, 3) / (27 * channels) ** 0.5
    codes = x.transpose(0, 1)
    sheet, out = winograd.Sheet(codes, channels), winograd.Sheet(codes, found)
    sheet.inner.copy_(codes)
    found_at = torch.zeros_like(out.inner)

    def after(here):
        found_at[here] += 1

    winograd.conv3d(sheet, winograd.transform(kernel), bias, out, after)
    assert bool((found_at == 1).all()), "each code is written once"
    expected = F.conv3d(x.permute(0, 4, 1, 2, 3).double(), kernel.double(), bias.double(), padding=1)
    torch.testing.assert_close(out.inner.double(), expected.permute(2, 0, 3, 4, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 31, 20, 20), (2, 5, 7, 9), (3, 2, 4, 13), (2, 1, 1, 1)])
@pytest.mark.parametrize("by_band", [False, True])
def test_the_fast_enhancement_is_the_plain_one(size, by_band):
    """Also when called again: what the first call left in its sheets must not matter."""
    torch.manual_seed(5)
    net = layers.DetailEnhancement(96)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.05)
    theta = torch.rand(*size[:2], 1, 1, 96) if by_band else torch.rand(96)
    gate = torch.randn(*size[:2], 1, 1, 96) if by_band else None
    with torch.no_grad():
        fast = net.ready()
    assert isinstance(fast, winograd.Enhancement)
    plain = net.ready()
    assert not isinstance(plain, winograd.Enhancement), "gradients take the plain way"
    for h in torch.randn(2, *size, 96):
        expected = plain(h, theta, gate)
        with torch.no_grad():
            torch.testing.assert_close(fast(h.clone(), theta, gate), expected, rtol=1e-4, atol=1e-4)


def test_the_merged_kernel_is_the_sum_of_five_convolutions():
    """Each difference is taken between samples here, not between kernels."""
    torch.manual_seed(2)
    conv = layers.DifferenceConv(3)
    with torch.no_grad():
        conv.bias.normal_()
    x = torch.randn(2, 3, 5, 6, 7)
    padded = F.pad(x, (1,) * 6)

    def at(b, i, j):
        return padded[:, :, b : b + 5, i : i + 6, j : j + 7]

    expected = conv.bias.sum(0).view(1, -1, 1, 1, 1).expand(2, 3, 5, 6, 7).clone()
    for b in range(3):
        for i in range(3):
            for j in range(3):
                expected += torch.einsum("oc,ncbhw->nobhw", conv.plain[:, :, b, i, j], at(b, i, j))
                expected += torch.einsum("oc,ncbhw->nobhw", conv.central[:, :, b, i, j], at(b, i, j) - x)
    for p in range(3):
        for q in range(3):
            expected += torch.einsum("oc,ncbhw->nobhw", conv.columns[:, :, p, q], at(p, q, 0) - at(p, q, 2))
            expected += torch.einsum("oc,ncbhw->nobhw", conv.rows[:, :, p, q], at(p, 0, q) - at(p, 2, q))
            expected += torch.einsum("oc,ncbhw->nobhw", conv.bands[:, :, p, q], at(0, p, q) - at(2, p, q))
    found = F.conv3d(x, *conv.kernel(), padding=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 3)])
def test_swin_attention_ignores_what_was_padded(size, shift):
    """The reference attends token by token, to the tokens of the same window that exist."""
    torch.manual_seed(3)
    block = layers.SwinBlock(8, 2, 4, shift, 2).eval()
    x = torch.randn(1, *size, 8)
    q, k, v = block.qkv(x).view(*size, 3, 2, 4).permute(2, 0, 1, 3, 4)
    out = torch.zeros(*size, 2, 4)
    cells = [(i, j) for i in range(size[0]) for j in range(size[1])]
    for i, j in cells:
        window = ((i + shift) // 4, (j + shift) // 4)
        others = [(a, b) for a, b in cells if ((a + shift) // 4, (b + shift) // 4) == window]
        for head in range(2):
            scores = torch.stack(
                [
                    q[i, j, head] @ k[a, b, head] / 2 + block.position[(i - a + 3) * 7 + (j - b + 3), head]
                    for a, b in others
                ]
            )
            out[i, j, head] = scores.softmax(0) @ torch.stack([v[a, b, head] for a, b in others])
    expected = block.proj(out.flatten(-2))[None]
    torch.testing.assert_close(block.attend(x, shift), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("rows", [1, 2, 3, 8, 9, 21])
def test_strips_of_swin_windows_make_no_difference(monkeypatch, rows, shift):
    torch.manual_seed(3)
    block = layers.SwinBlock(8, 2, 4, shift, 2).eval()
    x = torch.randn(2, rows, 10, 8)
    whole = block(x)
    monkeypatch.setattr(layers, "STRIP", 2 * 10 * 4 * 3 * 8 * 4)  # a row of windows
    with torch.no_grad():
        torch.testing.assert_close(block(x), whole)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(1, 5, 1, 1), (2, 5, 3, 17), (1, 5, 33, 20), (1, 9, 16, 16)])
def test_every_size_and_band_count_works(shape, weighted):
    network = tiny(noise_weighted=weighted, bands=shape[1])
    x, record = network(torch.rand(shape), torch.full(shape[:2], 0.1))
    assert x.shape == shape
    assert torch.isfinite(x).all()
    assert record.evaluations.shape == (shape[0],)


def test_a_batch_is_as_good_as_one_by_one():
    network = tiny(noise_weighted=True)
    y, sigma = torch.rand(3, 5, 24, 24), torch.rand(3, 5) * 0.2
    together, _ = network(y, sigma, tolerance=0)
    for i in range(3):
        alone, _ = network(y[i : i + 1], sigma[i : i + 1], tolerance=0)
        torch.testing.assert_close(together[i], alone[0], rtol=1e-3, atol=1e-4)


def test_one_step_is_equation_20_written_out():
    """S and H updated with PyTorch's own strided and transposed convolutions."""
    network = tiny()
    c = network.config
    grid = Grid.over(16, 20, c.kernel, c.stride, (0, 0))
    image = torch.rand(1, 5, 16, 20)
    cells = network.dictionaries.arrange(grid.to_cells(image))
    s, h = torch.randn(1, grid.rows, grid.cols, 8), torch.randn(1, 5, grid.rows, grid.cols, 4)
    found = network.step(cells, (s, h), network.pack(torch.zeros(1, 5)))

    y = reflect(reflect(image, grid.top, grid.cell_rows * 4 - grid.top - 16, 2), grid.left,
                grid.cell_cols * 4 - grid.left - 20, 3)  # fmt: skip

    def pad(z):
        return F.pad(z, (0, y.shape[-1] - z.shape[-1], 0, y.shape[-2] - z.shape[-2]))

    def k(s):
        return pad(F.conv_transpose2d(s, network.shared["synthesis"], stride=4))

    def d(h):
        kernel = network.local["synthesis"][:, None]
        return pad(F.conv_transpose3d(h, kernel, stride=(1, 4, 4), padding=(1, 0, 0))[:, 0])

    def crop(z):
        return z[..., : grid.rows, : grid.cols]

    s0, h0 = s.permute(0, 3, 1, 2), h.permute(0, 4, 1, 2, 3)
    s1 = s0 + crop(F.conv2d(y - k(s0) - d(h0), network.shared["analysis"], stride=4))
    s1 = network.net1(layers.soft_threshold(s1.permute(0, 2, 3, 1), network.theta_shared)).permute(0, 3, 1, 2)
    r = y - k(s1) - d(h0)
    h1 = h0 + crop(F.conv3d(r[:, None], network.local["analysis"][:, None], stride=(1, 4, 4), padding=(1, 0, 0)))
    h1 = network.net2.ready()(h1.permute(0, 2, 3, 4, 1), network.theta_local, None)
    torch.testing.assert_close(found[0], s1.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], h1, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [(0, 0), (1, 3)])
def test_cells_and_back(shift):
    grid = Grid.over(21, 34, TINY.kernel, TINY.stride, shift)
    image = torch.rand(2, 5, 21, 34)
    assert torch.equal(grid.from_cells(grid.to_cells(image)), image)


def test_reflection_of_one_pixel():
    assert torch.equal(reflect(torch.ones(1, 1, 1, 1), 3, 4, 2), torch.ones(1, 1, 8, 1))
    assert reflect(torch.arange(3.0).view(1, 1, 1, 3), 3, 3, 3).flatten().tolist() == [1, 2, 1, 0, 1, 2, 1, 0, 1]


def test_the_dct_is_orthonormal_and_its_atoms_are_ordered_by_roughness():
    basis = dct(8)
    torch.testing.assert_close(basis @ basis.T, torch.eye(8, dtype=torch.float64))
    atoms = dct_atoms(20, 3, 8).flatten(1)
    torch.testing.assert_close(atoms @ atoms.T, torch.eye(20), rtol=0, atol=1e-5)
    assert atoms[0].std() < 1e-6


def test_the_frame_denoises_before_any_training():
    """DESIGN: a working denoiser is the starting point; the paper's draw is not."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:64, :64] / 64
    spectra = rng.random((3, 31)).cumsum(1) / 31
    maps = np.stack([np.sin(5 * rows) ** 2, np.cos(7 * cols) ** 2, rows * cols])
    clean = torch.from_numpy(np.einsum("ab,aij->bij", spectra, maps).astype(np.float32))[None]
    noisy = clean + 0.1 * torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
    torch.manual_seed(0)
    with torch.no_grad():
        network = build("decsc", noise_weighted=True, wiener=True, kernel=8, stride=4, evaluations=6)
        frame, _ = network(noisy, torch.full((1, 31), 0.1))
    assert (frame - clean).square().mean() < 0.2 * (noisy - clean).square().mean()


def test_unknown_start():
    with pytest.raises(ValueError, match="frame or kaiming"):
        build("compact", "zeros")


def test_a_noise_weighted_network_insists_on_the_noise():
    with pytest.raises(ValueError, match="sigma"):
        tiny(noise_weighted=True)(torch.rand(1, 5, 8, 8))


@pytest.mark.parametrize(
    ("field", "value"),
    [("stride", 0), ("stride", 10), ("evaluations", "x"), ("shared", 10**9), ("heads", 3), ("tolerance", None),
     ("bands", True), ("depth", -1)],
)  # fmt: skip
def test_shapes_no_network_has_are_refused(field, value):
    with pytest.raises(ValueError, match=field if field != "heads" else "divide"):
        replace(CONFIGS["compact"], **{field: value})


def test_half_precision_rounds_the_two_networks_alone():
    """A residual's rounding would go into the codes at each step: none could come to rest."""
    torch.manual_seed(0)
    network = DECSC(replace(TINY, kernel=9, stride=7, shrink=0.9, evaluations=30)).eval()
    y = torch.rand(1, 5, 21, 28)
    exact = network.solve(y, tolerance=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network.solve(y, tolerance=0.0)
    assert rounded.x.dtype == torch.float32
    assert exact.convergence.residual < 1e-4
    assert rounded.convergence.residual < 3e-3
    assert (rounded.x - exact.x).norm() < 0.01 * exact.x.norm()


@pytest.mark.parametrize(("kernel", "stride", "wiener"), [(9, 7, True), (9, 7, False), (8, 4, True), (6, 3, True)])
def test_after_its_period_the_network_repeats_itself(kernel, stride, wiener):
    """Tiles begin at multiples of it: what is far from a tile's edge must not depend on where the tile began."""
    torch.manual_seed(0)
    network = DECSC(replace(TINY, kernel=kernel, stride=stride, wiener=wiener)).eval()
    at, reach = network.period, 50
    y = torch.rand(1, 5, 20, at + 2 * reach)
    sigma = torch.full((1, 5), 0.1)
    whole, cut = (network(part, sigma, evaluations=1)[0] for part in (y, y[..., at:]))
    torch.testing.assert_close(cut[..., reach:], whole[..., at + reach :], rtol=0, atol=3e-5)  # rounding: 1.4e-5
    elsewhere = network(y[..., at - 1 :], sigma, evaluations=1)[0][..., 1:]
    assert (elsewhere[..., reach:] - whole[..., at + reach :]).abs().max() > 1e-3

"""DECSC: Deep Equilibrium Convolutional Sparse Coding (Ye, Wang, Xiong, Chen and Qian, TGRS 2025).

A noisy patch Y is explained by two kinds of sparse codes on a strided grid: S, shared by all bands, with the 2-D
dictionary K, and H, one per neighbourhood of three bands, with the 3-D dictionary D. The codes are the fixed point of

    S <- Net1(soft(S + W_K (Y - K S - D H)))                                      (paper, eq. 20)
    H <- Net2(soft(H + W_D (Y - K S - D H)))

and the clean patch is K' S* + D' H* (eq. 21). Analysis W, synthesis and reconstruction dictionaries are untied.

Ours beside the paper's (``noise_weighted``): told the noise sigma of each band, the residual is weighted by it,
W diag(w) (Y - K S - D H) with w_b falling as 1 / sigma_b^2 beyond the cleanest quarter of the bands, and thresholds
and gates follow the noise that is left. Clean bands then guide noisy ones.

Ours too (``frontend = "eigen"``): the network sees eigen-images (`hsidenoise.eigen`), whose noise is white with unit
variance and whose signal reaches hundreds; Net1 and Net2 then look at asinh of the codes. With ``shrink`` < 1 the codes
are damped at each step (the ridge of an elastic net): else it is left open which of S and H explains what both can,
and the solver creeps.

With ``wiener``, what the dictionaries reconstruct is the pilot of a Wiener filter on the noisy bands or images, all
together in local bases: codes on a coarse grid know which frequencies a place has, the filter treats all pixels
alike. For eigen-images the pilot also takes in what else stands out of the noise. ``gains`` has the filters learned too
(`hsidenoise.model.gains`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import layers
from .atoms import dct_atoms, image_atoms, kaiming, own_channel
from .configs import CONFIGS, Config
from .dct import STEPS, THRESHOLD, dct_threshold, local_wiener, refine
from .deq import Convergence, State, fixed_point, phantom
from .dictionary import dictionaries
from .gains import Gains
from .grid import Grid
from .threads import blocked, in_parts

#: Sigma added in quadrature to every band's: no band is trusted beyond it.
NOISE_FLOOR = 0.003

#: Patches that share a basis of bands (`local_wiener`): of 31, bases take a third of the filter's time at two.
SHARED = 4

#: Least sigma that the Wiener filter reckons with.
LEAST_LEVEL = 5e-4

#: Pixels between patches of the filter's passes while gains are learned: a third of the work of `STEPS`.
LEARNED_STEPS = (2, 2)

#: Rms of codes below which training does not ask how well the solver found them: what is all noise has none.
FAINT = 0.25


class Packed(NamedTuple):
    """What all evaluations of one forward pass share: kernels on the code grid, weights and thresholds."""

    analyse_shared: Tensor
    spread_shared: Tensor
    analyse_local: Tensor
    spread_local: Tensor
    enhancement: layers.Enhancement
    weight: Tensor | None
    theta_shared: Tensor
    theta_local: Tensor
    gate: Tensor | None


class Solved(NamedTuple):
    """What `DECSC.solve` finds.

    Parameters
    ----------
    x
        The answer, (N, B, H, W).
    pilot
        What its last filter was guided by at first, the same shape; the answer itself where there is none.
    drift
        Relative residual where the gradient is taken, (N,).
    convergence
        Of the solver.
    """

    x: Tensor
    pilot: Tensor
    drift: Tensor
    convergence: Convergence


class DECSC(nn.Module):
    """The network; patches (N, B, H, W) of any size, values about [0, 1].

    Parameters
    ----------
    config
        Its shape.
    init
        ``"frame"`` starts as a working denoiser: DCT atoms scaled to a tight frame, Net1 and Net2 near the identity.
        ``"kaiming"`` is the paper's draw.
    """

    def __init__(self, config: Config, init: str = "frame") -> None:
        super().__init__()
        self.config = config
        c = config
        self.dictionaries = dictionaries(c.kernel, c.stride)
        shared = kaiming(c.shared, c.bands, c.kernel)
        local = kaiming(c.local, 3, c.kernel)
        self.shared = nn.ParameterDict({name: shared.clone() for name in ("analysis", "synthesis", "reconstruction")})
        self.local = nn.ParameterDict({name: local.clone() for name in ("analysis", "synthesis", "reconstruction")})
        unit = c.frontend == "eigen"
        self.theta_shared = nn.Parameter(torch.full((c.shared,), 1.5 if unit else 0.01))
        self.theta_local = nn.Parameter(torch.full((c.local,), 1.5 if unit else 0.01))
        if c.noise_weighted:
            self.slope_shared = nn.Parameter(torch.full((c.shared,), 0.3))
            self.slope_local = nn.Parameter(torch.full((c.local,), 0.25))
            self.slope_gate = nn.Parameter(torch.zeros(c.local))
        # Between images that differ in strength by a thousand, the least leak would drown the weak ones: an atom of an
        # eigen-image has that image alone, and images learn of each other in Net1 and Net2, through asinh.
        self.register_buffer("mask_shared", own_channel(c.shared, c.bands) if unit else None, persistent=False)
        self.register_buffer("mask_local", own_channel(1, 3, 1) if unit else None, persistent=False)
        self.net1 = nn.Sequential(
            *(
                layers.SwinBlock(c.shared, c.heads, c.window, (i % 2) * (c.window // 2), c.ratio, squash=unit)
                for i in range(c.depth)
            )
        )
        self.net2 = layers.DetailEnhancement(c.local, squash=unit)
        self.gains = Gains(c.gains) if c.gains else None
        if init == "frame":
            self._start_as_frame()
        elif init != "kaiming":
            raise ValueError(f"init must be frame or kaiming, not {init!r}")

    mask_shared: Tensor | None
    mask_local: Tensor | None

    @property
    def frontend(self) -> str:
        """What it wants to be shown: ``windows`` or ``eigen``."""
        return self.config.frontend

    @property
    def bands(self) -> int:
        """Bands, or eigen-images, of a patch."""
        return self.config.bands

    @property
    def stride(self) -> int:
        """Pixels between codes: the grid can be shifted by less."""
        return self.config.stride

    @property
    def period(self) -> int:
        """Pixels after which the network repeats itself: code grid times attention window, and the filter's bases."""
        codes = self.config.stride * self.config.window
        return math.lcm(codes, STEPS[0] * SHARED) if self.config.wiener and self.frontend == "windows" else codes

    @property
    def floats_per_pixel(self) -> float:
        """Memory for a pixel of a patch: codes, the solver's history and temporaries."""
        c = self.config
        return (c.shared + c.bands * c.local) / c.stride**2 * 2 * 8 + 6 * c.bands

    @torch.no_grad()
    def _start_as_frame(self) -> None:
        c = self.config
        overlap = (c.kernel / c.stride) ** 2
        if c.frontend == "eigen":  # no order along the components: atoms of one component each
            shared = image_atoms(c.shared, c.bands, c.kernel) / math.sqrt(overlap)
            local = F.pad(image_atoms(c.local, 1, c.kernel), (0, 0, 0, 0, 1, 1)) / math.sqrt(overlap)
        else:
            shared = dct_atoms(c.shared, c.bands, c.kernel) / math.sqrt(overlap)
            local = dct_atoms(c.local, 3, c.kernel) / math.sqrt(3 * overlap)
        for dictionary, atoms in ((self.shared, shared), (self.local, local)):
            for kernel in dictionary.values():
                kernel.copy_(atoms)
        for block in self.net1:
            assert isinstance(block, layers.SwinBlock)
            for last in (block.proj, block.mlp[2]):
                for parameter, gain in zip(last.parameters(), (0.05, 0.0), strict=True):  # weight, bias
                    parameter.mul_(gain)
        for kernel in self.net2.difference.parameters():
            kernel.mul_(0.05)
        self.net2.expand.weight.mul_(0.05)
        nn.init.constant_(self.net2.expand.bias, 6.0 if c.frontend == "eigen" else 3.0)  # type: ignore[arg-type]  # Conv3d has a bias here

    def pack(self, sigma: Tensor) -> Packed:
        """What `step` needs besides the data, once per forward pass; `sigma` is (N, B)."""
        count = sigma.shape[1]
        kernels = (
            self.dictionaries.shared(self.masked("shared", "analysis", count)),
            self.dictionaries.shared(self.masked("shared", "synthesis", count), transpose=True),
            self.dictionaries.local(self.masked("local", "analysis")),
            self.dictionaries.local(self.masked("local", "synthesis"), transpose=True),
            self.net2.ready(),
        )
        if not self.config.noise_weighted:
            return Packed(*kernels, None, self.theta_shared.clamp_min(0), self.theta_local.clamp_min(0), None)
        variance = sigma**2 + NOISE_FLOOR**2
        quarter = torch.quantile(variance, 0.25, dim=1, keepdim=True)
        weight = (quarter / variance).clamp_max(1)
        left = weight * variance.sqrt()
        together = left.square().mean(1, keepdim=True).sqrt()
        return Packed(
            *kernels,
            weight[:, :, None, None, None],
            (self.theta_shared + self.slope_shared * together).clamp_min(0)[:, None, None],
            (self.theta_local + self.slope_local * left[..., None]).clamp_min(0)[:, :, None, None],
            (torch.log(variance)[..., None] * self.slope_gate)[:, :, None, None],
        )

    def step(self, y: Tensor, z: State, packed: Packed) -> State:
        """One evaluation of f (eq. 20): S first, then H with the new S. Under autocast Net1 and Net2 alone are rounded.

        `y` is space to depth, (N, B, h, w, s^2), arranged for the dictionaries; `z` is S (N, h', w', shared) and
        H (N, B, h', w', local).
        """
        s, h = z
        apply = self.dictionaries
        with exactly(y.device):
            found = apply.spread(s, packed.spread_shared, h, packed.spread_local)
            left = minus(y, found, out=found)
            before = s
            s = apply.analyse_shared(weigh(left, packed.weight), packed.analyse_shared, s)
        s = self.net1(layers.soft_threshold(s, packed.theta_shared)).float()
        s = s if self.config.shrink == 1 else s * self.config.shrink
        with exactly(y.device):
            left = apply.take_shared(left, minus(s, before), packed.spread_shared)  # y - K S - D H, S the new one
            h = apply.analyse_local(weigh(left, packed.weight), packed.analyse_local, h)
        h = packed.enhancement(h, packed.theta_local, packed.gate).float()
        h = h if self.config.shrink == 1 else h * self.config.shrink
        return s, h

    def masked(self, part: str, name: str, count: int | None = None) -> Tensor:
        """A dictionary, (atoms, bands or 3, k, k); of the shared one the first `count` bands."""
        kernels, mask = (self.shared, self.mask_shared) if part == "shared" else (self.local, self.mask_local)
        kernel: Tensor = kernels[name]
        kernel = kernel if mask is None else kernel * mask
        return kernel[:, :count] if part == "shared" else kernel

    def forward(self, y: Tensor, sigma: Tensor | None = None, **solver: Any) -> tuple[Tensor, Convergence]:
        """Clean patches and how the codes came to their fixed point; parameters as of `solve`."""
        found = self.solve(y, sigma, **solver)
        return found.x, found.convergence

    def solve(
        self,
        y: Tensor,
        sigma: Tensor | None = None,
        *,
        evaluations: int | None = None,
        tolerance: float | None = None,
        shift: tuple[int, int] = (0, 0),
        phantom_steps: int = 0,
        filtered: bool = True,
    ) -> Solved:
        """Denoise patches, with all that training looks at.

        Parameters
        ----------
        y
            Noisy patches (N, B, H, W), values about [0, 1]; of eigen-images there may be fewer than the network has.
        sigma
            Noise standard deviation of each band in the units of `y`, (N, B); a network that is not
            ``noise_weighted`` does not need it.
        evaluations, tolerance
            Of the solver; the configuration's by default.
        shift
            Moves the code grid by this many pixels (rows, columns).
        phantom_steps
            Unrolled steps that carry the gradient (`hsidenoise.model.deq.phantom`).
        filtered
            Whether the last filter, where the network has one, is applied.
        """
        c = self.config
        grid = Grid.over(y.shape[-2], y.shape[-1], c.kernel, c.stride, shift)
        apply = self.dictionaries
        cells = apply.arrange(grid.to_cells(y))
        n, b = y.shape[:2]
        if sigma is None:
            if c.noise_weighted:
                raise ValueError("this network needs the noise sigma of each band")
            sigma = y.new_zeros(n, b)
        z0 = (
            y.new_zeros(n, grid.rows, grid.cols, c.shared),
            y.new_zeros(n, b, grid.rows, grid.cols, c.local),
        )
        with torch.no_grad():
            frozen = self.pack(sigma)
        z, convergence = fixed_point(
            lambda z: self.step(cells, z, frozen),
            z0,
            evaluations=c.evaluations if evaluations is None else evaluations,
            tolerance=c.tolerance if tolerance is None else tolerance,
        )
        drift = convergence.residual
        if phantom_steps:
            packed = self.pack(sigma)
            z, drift = phantom(lambda z: self.step(cells, z, packed), z, steps=phantom_steps, floor=FAINT)
        with exactly(y.device):
            pilot = self._pilot(y, grid.from_cells(apply.restore(self._reconstructed(z))))
            x = self._filtered(y, pilot, sigma) if c.wiener and filtered else pilot
        return Solved(x, pilot, drift, convergence)

    def _reconstructed(self, z: State) -> Tensor:
        """What the codes explain (eq. 21), in cells."""
        s, h = z
        shared = self.dictionaries.shared(self.masked("shared", "reconstruction", h.shape[1]), transpose=True)
        local = self.dictionaries.local(self.masked("local", "reconstruction"), transpose=True)
        return self.dictionaries.spread(s, shared, h, local)

    def _pilot(self, y: Tensor, found: Tensor) -> Tensor:
        """What guides the last filter: what the codes explain, and of eigen-images what else stands out of noise."""
        if self.frontend == "windows" or not self.config.wiener:
            return found
        threshold = None if self.gains is None else self.gains.threshold
        return found + dct_threshold(y - found, THRESHOLD, learned=threshold)

    def _filtered(self, y: Tensor, pilot: Tensor, sigma: Tensor) -> Tensor:
        """The last filter's result."""
        if self.frontend == "eigen":
            return refine(y, pilot, self.gains, LEARNED_STEPS if self.training else STEPS[1:])
        level = sigma[:, :, None, None].clamp_min(LEAST_LEVEL)
        return level * local_wiener(y / level, pilot / level, STEPS[0], SHARED)


def weigh(residual: Tensor, weight: Tensor | None) -> Tensor:
    """The residual times each band's weight; as it is where bands are not weighted."""
    return residual if weight is None else residual * weight


def exactly(device: torch.device) -> torch.autocast:
    """No autocast: a residual's rounding would go into the codes at each step."""
    return torch.autocast(device.type, enabled=False)


def minus(x: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
    """The difference, in the memory of `out` where no gradient needs that."""
    if not blocked(x):
        return torch.sub(x, y, out=None if torch.is_grad_enabled() else out)
    out = torch.empty_like(x) if out is None else out
    in_parts(lambda a, b, c: torch.sub(a, b, out=c), x, y, out)
    return out


def build(arch: str, init: str = "frame", **changes: Any) -> DECSC:
    """A fresh network of a named configuration, with `changes` to it."""
    return DECSC(replace(CONFIGS[arch], **changes), init)


def rebanded(network: DECSC, bands: int) -> DECSC:
    """The network for another number of bands: atoms over all bands are resampled, all else is carried over."""
    other = DECSC(replace(network.config, bands=bands))
    state = dict(network.state_dict())
    for name in network.shared:
        atoms = state[f"shared.{name}"].flatten(2).transpose(1, 2)  # (atoms, pixels, bands)
        atoms = F.interpolate(atoms, bands, mode="linear", align_corners=False) * math.sqrt(network.bands / bands)
        state[f"shared.{name}"] = atoms.transpose(1, 2).reshape(-1, bands, *network.shared[name].shape[2:])
    other.load_state_dict(state)
    return other

"""The weight-free model with learned gains: a network of eigen-images without codes, and as fast as a filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .dct import STEPS, THRESHOLD, Dct, dct_threshold, refine
from .decsc import LEARNED_STEPS, Solved
from .deq import Convergence
from .gains import Gains


@dataclass(frozen=True)
class ShrinkageConfig:
    """Its shape.

    Parameters
    ----------
    bands
        Eigen-images looked at together, at most.
    gains
        Width of the hidden layers (`hsidenoise.model.gains`).
    """

    bands: int = Dct.bands
    gains: int = 64

    #: What the training of a network with a solver asks for: there is nothing to solve.
    evaluations = 1

    def __post_init__(self) -> None:
        """Refuse shapes that no network has: configurations come from files too.

        Raises
        ------
        ValueError
            Names the field.
        """
        for name, most in (("bands", 64), ("gains", 1024)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"{name} {value!r} is not a whole number from 1 to {most}")


class Shrinkage(nn.Module):
    """`hsidenoise.model.dct.Dct` whose threshold and Wiener filters have learned gains; untrained, it is the same."""

    frontend = "eigen"
    stride = 1
    period = Dct.period

    def __init__(self, config: ShrinkageConfig) -> None:
        super().__init__()
        self.config = config
        self.gains = Gains(config.gains)

    @property
    def bands(self) -> int:
        """Eigen-images looked at together, at most."""
        return self.config.bands

    @property
    def floats_per_pixel(self) -> float:
        """As of the weight-free model."""
        return 8.0 * self.bands

    def forward(self, y: Tensor, sigma: Tensor | None = None, **solver: Any) -> tuple[Tensor, Convergence]:
        """Clean images; parameters as of `solve`."""
        found = self.solve(y, sigma, **solver)
        return found.x, found.convergence

    def solve(self, y: Tensor, sigma: Tensor | None = None, **_: Any) -> Solved:
        """Denoise images (N, B, H, W) of unit noise, B up to `bands`; nothing is solved, no grid is shifted."""
        n = len(y)
        pilot = dct_threshold(y, THRESHOLD, learned=self.gains.threshold)
        x = refine(y, pilot, self.gains, LEARNED_STEPS if self.training else STEPS[1:])
        one, none = torch.ones(n, dtype=torch.int64, device=y.device), torch.zeros(n, device=y.device)
        return Solved(x, pilot, none, Convergence(one, none, one.bool()))

"""PSNR and residual against evaluations of f: what the solver still gains, and whether it has arrived.

    python benchmarks/iterations.py VAL.h5 [--model NAME] [--picture iterations.png]

Windows of 96 pixels from the middle of every cube, as training validates on, with each noise pattern; means over the
cubes, told the true noise. The paper's Fig. 12 shows the same of its weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from hsidenoise import metrics
from hsidenoise.model.decsc import DECSC
from hsidenoise.model.deq import Convergence
from hsidenoise.model.weights import find, load
from hsidenoise.noise import PATTERNS, add_noise
from hsidenoise.patches import load_scenes
from hsidenoise.validation import apply, val_windows

EVALUATIONS = (1, 2, 3, 4, 6, 8, 12, 20, 40)


class Stopped(torch.nn.Module):
    """A network whose solver takes so many evaluations, neither more nor fewer, and what residual that left.

    Parameters
    ----------
    model
        It.
    evaluations
        Of f.
    """

    def __init__(self, model: DECSC, evaluations: int) -> None:
        super().__init__()
        self.model, self.evaluations = model, evaluations
        self.frontend, self.bands = model.frontend, model.bands
        self.residual = 0.0

    def forward(self, y: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, Convergence]:
        """As the network's."""
        x, convergence = self.model(y, sigma, evaluations=self.evaluations, tolerance=0.0)
        self.residual = max(self.residual, float(convergence.residual.max()))
        return x, convergence


@torch.inference_mode()
def main() -> None:
    """Parse, denoise, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("val", type=Path)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    model, _ = load(find(given.model))
    windows = list(val_windows(load_scenes(given.val), 31))
    used = model.config.evaluations
    counts = sorted({*EVALUATIONS, used, 5 * used})
    psnr = np.zeros((len(PATTERNS), len(counts), len(windows)))
    residual = np.zeros_like(psnr)
    for p, pattern in enumerate(PATTERNS):
        for w, (_, clean) in enumerate(windows):
            noisy = add_noise(clean, pattern, np.random.default_rng([7, w, p]))
            sigma = (noisy - clean).std((1, 2))
            for e, evaluations in enumerate(counts):
                stopped = Stopped(model, evaluations)
                psnr[p, e, w] = metrics.psnr(clean, np.clip(apply(stopped, noisy, sigma), 0, 1))
                residual[p, e, w] = stopped.residual
        found = zip(counts, psnr[p].mean(1), residual[p].mean(1), strict=True)
        print(pattern, *(f"{e}: {v:.2f} dB {r:.0e}" for e, v, r in found), sep="  ", flush=True)
    last, more = psnr[:, counts.index(used)], psnr[:, counts.index(5 * used)]
    rest = residual[:, counts.index(used)]
    print(f"residual under {model.config.tolerance:g} after {used}: {(rest < model.config.tolerance).sum()} of "
          f"{rest.size}; five times as many change PSNR by {np.abs(last - more).max():.4f} dB at most")  # fmt: skip
    if given.picture:
        draw(counts, psnr.mean(2), residual.mean(2), used, given)


def draw(
    counts: list[int], psnr: np.ndarray, residual: np.ndarray, used: int, given: argparse.Namespace
) -> None:
    """Both against evaluations, a line for each pattern."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for p, pattern in enumerate(PATTERNS):
        axes[0].plot(counts, psnr[p], marker=".", label=pattern)
        axes[1].plot(counts, residual[p], marker=".")
    for axis, title in zip(axes, ("MPSNR, dB", "relative residual"), strict=True):
        axis.set(title=f"{given.model}: {title}", xlabel="evaluations of f", xscale="log")
        axis.set_xticks(counts, [str(e) for e in counts])
        axis.minorticks_off()
        axis.axvline(used, color="0.7", linestyle="--", linewidth=1, zorder=0)
    axes[1].set_yscale("log")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(given.picture, dpi=110)


if __name__ == "__main__":
    main()

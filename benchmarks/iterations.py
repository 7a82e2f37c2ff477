"""PSNR and residual against evaluations of f: what the solver still gains, and whether it has arrived.

    python benchmarks/iterations.py VAL.h5 [--model NAME] [--picture iterations.png]

Windows of 96 pixels from the middle of every cube, as training validates on, with each noise pattern; means over the
cubes. The paper's Fig. 12 shows the same of its weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from hsidenoise import metrics
from hsidenoise.model.weights import find, load
from hsidenoise.noise import PATTERNS, add_noise
from hsidenoise.patches import load_scenes
from hsidenoise.validation import val_windows

EVALUATIONS = (1, 2, 3, 4, 6, 8, 12, 20, 40)


@torch.inference_mode()
def main() -> None:
    """Parse, denoise, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("val", type=Path)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    model, _ = load(find(given.model))
    windows = list(val_windows(load_scenes(given.val), model.bands))
    psnr = np.zeros((len(PATTERNS), len(EVALUATIONS), len(windows)))
    residual = np.zeros_like(psnr)
    for p, pattern in enumerate(PATTERNS):
        for w, (_, clean) in enumerate(windows):
            noisy = add_noise(clean, pattern, np.random.default_rng([7, w, p]))
            y = torch.from_numpy(noisy)[None]
            sigma = torch.from_numpy((noisy - clean).std((1, 2)))[None]
            for e, evaluations in enumerate(EVALUATIONS):
                x, convergence = model(y, sigma, evaluations=evaluations, tolerance=0.0)
                psnr[p, e, w] = metrics.psnr(clean, np.clip(x[0].numpy(), 0, 1))
                residual[p, e, w] = float(convergence.residual[0])
        found = zip(EVALUATIONS, psnr[p].mean(1), residual[p].mean(1), strict=True)
        print(pattern, *(f"{e}: {v:.2f} dB {r:.0e}" for e, v, r in found), sep="  ", flush=True)
    if given.picture:
        draw(psnr.mean(2), residual.mean(2), model.config.evaluations, given)


def draw(psnr: np.ndarray, residual: np.ndarray, used: int, given: argparse.Namespace) -> None:
    """Both against evaluations, a line for each pattern."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for p, pattern in enumerate(PATTERNS):
        axes[0].plot(EVALUATIONS, psnr[p], marker=".", label=pattern)
        axes[1].plot(EVALUATIONS, residual[p], marker=".")
    for axis, title in zip(axes, ("MPSNR, dB", "relative residual"), strict=True):
        axis.set(title=f"{given.model}: {title}", xlabel="evaluations of f", xscale="log")
        axis.set_xticks(EVALUATIONS, [str(e) for e in EVALUATIONS])
        axis.minorticks_off()
        axis.axvline(used, color="0.7", linestyle="--", linewidth=1, zorder=0)
    axes[1].set_yscale("log")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(given.picture, dpi=110)


if __name__ == "__main__":
    main()

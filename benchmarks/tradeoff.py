"""Quality against time, for what can be turned without training: evaluations and shifts of a network, steps of ``dct``.

    python benchmarks/tradeoff.py VAL.h5 [--model compact] [--patterns g15,g55,corr] [--picture tradeoff.png]

MPSNR of windows of 31 bands and 96 pixels from the middle of every cube, as training validates on, told the true noise
and with defects left in; means over cubes and patterns. Seconds are processor time of one thread, for a megavoxel
(pixels times bands), eigen-images included for ``dct``, reading and surveying not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from hsidenoise import metrics
from hsidenoise.device import pick
from hsidenoise.engine import Engine
from hsidenoise.model import dct
from hsidenoise.model.decsc import DECSC
from hsidenoise.model.weights import find, load
from hsidenoise.noise import add_noise
from hsidenoise.patches import load_scenes
from hsidenoise.validation import apply, val_windows

EVALUATIONS = (2, 3, 4, 6, 8, 12)
SHIFTS = (1, 2, 4)
#: Pixels between patches: of the threshold, and of both passes of the Wiener filter.
STEPS = ((4, 4, 4), (3, 3, 3), (2, 2, 2), (2, 2, 1), (1, 1, 1))

Denoiser = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Shifted(torch.nn.Module):
    """A network's mean over shifts of the code grid, after so many evaluations."""

    def __init__(self, model: DECSC, evaluations: int, shifts: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.model, self.evaluations, self.shifts = model, evaluations, shifts
        self.frontend, self.bands = model.frontend, model.bands

    def forward(self, y: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, None]:
        """As the network's."""
        told = {"evaluations": self.evaluations, "tolerance": 0.0}
        return torch.stack([self.model(y, sigma, shift=shift, **told)[0] for shift in self.shifts]).mean(0), None


class Stepped(dct.Dct):
    """``dct`` with other steps."""

    def __init__(self, steps: tuple[int, int, int]) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, y: torch.Tensor, sigma: torch.Tensor | None = None) -> tuple[torch.Tensor, None]:
        """As `dct.Dct`'s, but for the steps."""
        x = dct.dct_threshold(y, dct.THRESHOLD, self.steps[0])
        for step in self.steps[1:]:
            x = dct.local_wiener(y, x, step)
        return x, None


def methods(name: str) -> dict[tuple[str, str], Denoiser]:
    """Every setting, by curve and label."""
    model, card = load(find(name))
    found: dict[tuple[str, str], Denoiser] = {}
    for shifts in SHIFTS:
        order = tuple(Engine(model, card, pick("cpu"), shifts).shifts)
        for evaluations in EVALUATIONS if shifts == 1 else EVALUATIONS[2:4]:
            curve = f"{name}, {shifts} shift{'s' * (shifts > 1)}"
            found[curve, f"{evaluations} evaluations"] = partial(
                apply, Shifted(model, evaluations, order)
            )
    found["shrinkage", "as it is"] = partial(apply, load(find("shrinkage"))[0])
    for steps in STEPS:
        found["dct", "steps " + ", ".join(map(str, steps))] = partial(apply, Stepped(steps))
    return found


@torch.inference_mode()
def main() -> None:
    """Parse, denoise, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("val", type=Path)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--patterns", default="g15,g55,corr")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    windows = [clean for _, clean in val_windows(load_scenes(given.val), 31)]
    points: dict[tuple[str, str], tuple[float, list[float]]] = {}
    patterns = given.patterns.split(",")
    for key, denoise in methods(given.model).items():
        scores, seconds, voxels = [], 0.0, 0
        for p, pattern in enumerate(patterns):
            scores.append([])
            for w, clean in enumerate(windows):
                noisy = add_noise(clean, pattern, np.random.default_rng([7, w, p]))
                sigma = (noisy - clean).std((1, 2))
                began = time.process_time()
                result = denoise(noisy, sigma)
                seconds += time.process_time() - began
                voxels += clean.size
                scores[-1].append(metrics.psnr(clean, np.clip(result, 0, 1)))
        points[key] = seconds / voxels * 1e6, [float(np.mean(s)) for s in scores]
        cells = [*key, f"{points[key][0]:.2f}", *(f"{s:.2f}" for s in points[key][1]), f"{np.mean(points[key][1]):.2f}"]
        print("|", " | ".join(cells), "|", flush=True)
    if given.picture:
        draw({key: (seconds, float(np.mean(psnr))) for key, (seconds, psnr) in points.items()}, given)


def draw(points: dict[tuple[str, str], tuple[float, float]], given: argparse.Namespace) -> None:
    """MPSNR against seconds, a line for each curve, a label for each point."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for curve in dict.fromkeys(curve for curve, _ in points):
        here = {label: at for (of, label), at in points.items() if of == curve}
        axis.plot(*zip(*here.values(), strict=True), marker=".", label=curve)
        for label, at in here.items():
            short = label.removeprefix("steps ").removesuffix(" evaluations")
            axis.annotate(short, at, xytext=(3, -10), textcoords="offset points", fontsize=7)
    axis.set(xlabel="seconds a megavoxel, one thread", ylabel=f"MPSNR, dB, mean of {given.patterns}", xscale="log")
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(given.picture, dpi=110)


if __name__ == "__main__":
    main()

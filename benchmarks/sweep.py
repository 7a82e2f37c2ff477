"""Shapes of a network: each gets the same short training from its own start, then quality against time.

    python benchmarks/sweep.py TRAIN.h5... --val VAL.h5 -o build/sweep [--steps 120] [--base windows] [--only ...]

Every shape is the base with one thing changed. All see the same patches in the same order. Short trainings rank shapes
by how soon they learn; they say little of what hours would make of them. MPSNR is of the validation of `hsidenoise
train`; seconds are processor time of one thread for a megavoxel (pixels times bands). What a folder has already is not
trained again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from hsidenoise.model.configs import CONFIGS, Config
from hsidenoise.model.weights import find, load
from hsidenoise.settings import TrainOptions
from hsidenoise.train import train

#: The base that the table in docs/models.md is of: a small network of windows.
WINDOWS = Config(
    shared=128, local=32, kernel=8, stride=4, depth=2, heads=8, ratio=2, noise_weighted=True, evaluations=6, wiener=True
)
#: What is changed of the base, and how it starts.
SHAPES: dict[str, dict[str, int | bool]] = {
    "base": {},
    "stride 3": {"stride": 3},
    "stride 5": {"stride": 5},
    "stride 6": {"stride": 6},
    "stride 7": {"stride": 7},
    "kernel 6": {"kernel": 6},
    "kernel 10": {"kernel": 10},
    "kernel 12": {"kernel": 12},
    "atoms 64 + 16": {"shared": 64, "local": 16},
    "atoms 192 + 48": {"shared": 192, "local": 48},
    "bands 16": {"bands": 16},
    "depth 1": {"depth": 1},
    "noise not told": {"noise_weighted": False},
    "wiener off": {"wiener": False},
    "kaiming": {},
}


def shaped(base: Config, name: str) -> Config:
    """The base with a shape's change."""
    return replace(base, **SHAPES[name])  # type: ignore[arg-type]


def seconds(path: Path, edge: int = 192) -> float:
    """Of a whole solve, for a megavoxel."""
    network, _ = load(find(str(path)))
    y = torch.rand(1, network.bands, edge, edge)
    sigma = torch.full((1, network.bands), 0.1)
    times = []
    with torch.inference_mode():
        for _ in range(3):
            began = time.process_time()
            network(y, sigma, tolerance=0.0)
            times.append(time.process_time() - began)
    return min(times) / (y.numel() / 1e6)


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--base", choices=["windows", *CONFIGS], default="windows")
    parser.add_argument("--patterns", default="g15,g55,corr")
    parser.add_argument("--only", nargs="+", choices=SHAPES, default=list(SHAPES))
    given = parser.parse_args()
    CONFIGS.setdefault("windows", WINDOWS)
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    print(f"{'shape':16} {'parameters':>10} {'s/MVoxel':>8} " + " ".join(f"{p:>6}" for p in given.patterns.split(",")))
    for name in given.only:
        path = given.output / f"{name.replace(' ', '')}.safetensors"
        if not path.with_suffix(".json").exists():
            CONFIGS[name] = shaped(CONFIGS[given.base], name)
            options = TrainOptions(
                arch=name, val=given.val, steps=given.steps, validate_every=given.steps, patterns=given.patterns,
                init="kaiming" if name == "kaiming" else "frame", device="cpu", overwrite=True,
            )  # fmt: skip
            card = train(given.data, path, options, quiet=True)
            found = {p: card.validation[p]["mean"][0] for p in card.validation}
            hours = card.training["hours"]
            path.with_suffix(".json").write_text(json.dumps({"psnr": found, "seconds": seconds(path), "hours": hours}))
        told = json.loads(path.with_suffix(".json").read_text())
        network, _ = load(find(str(path)))
        count = sum(p.numel() for p in network.parameters())
        row = " ".join(f"{v:6.2f}" for v in told["psnr"].values())
        print(f"{name:16} {count:10,} {told['seconds']:8.2f} {row}  trained {60 * told['hours']:.0f} min", flush=True)


if __name__ == "__main__":
    main()

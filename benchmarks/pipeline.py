"""Whether training waits for its data: patches drawn a second, and the share of the time a trainer is busy.

    python benchmarks/pipeline.py DATA.h5 ... [--photos FOLDER] [--arch compact] [--steps 12] [--rate 300]
                                              [--device cuda --bf16 --batch 64]

One core's rate of drawing first (processor time, so that other work on the machine does not count), without
photographs, with the usual share of them, and with nothing else. Then a trainer is fed by `Prefetch` as `train` is:
this machine's own, and one that takes ``--rate`` patches a second and no processor time, as a GPU would.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from hsidenoise.device import pick
from hsidenoise.model.networks import build
from hsidenoise.patches import Draws, Prefetch, load_scenes
from hsidenoise.pipeline import pipeline
from hsidenoise.settings import TrainOptions
from hsidenoise.train import Run


def drawn(sampler: Draws, batches: int, size: int) -> float:
    """Patches a second of processor time."""
    sampler.batch(0, size)
    began = time.process_time()
    for step in range(batches):
        sampler.batch(step, size)
    return batches * size / (time.process_time() - began)


def trained(sampler: Draws, options: TrainOptions) -> Prefetch:
    """Some steps of a fresh network on this machine."""
    device = pick(options.device)
    run = Run(build(options.arch).to(device), options, Path("none.safetensors"), {}, {})
    batches = Prefetch(sampler, 0, options.steps, options.batch, processes=device.type == "cuda")
    for batch in batches:
        run.advance([torch.as_tensor(part).to(device) for part in batch])
    return batches


def fed(sampler: Draws, batches: int, size: int, rate: float) -> Prefetch:
    """A trainer that only waits: `rate` patches a second, in batches of `size`."""
    found = Prefetch(sampler, 0, batches, size)
    for _ in found:
        time.sleep(size / rate)
    return found


def main() -> None:
    """Parse, draw, train, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--arch", default="compact")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rate", type=float, default=300)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--bf16", action="store_true")
    given = parser.parse_args()
    scenes = [scene for path in given.data for scene in load_scenes(path)]
    model = build(given.arch)
    options = TrainOptions(
        arch=given.arch, steps=given.steps, photos=given.photos, device=given.device, batch=given.batch, bf16=given.bf16
    )
    sampler = pipeline(scenes, model, options)[0]
    for label, share in [("none", None), (f"{options.photo_share:g}", options.photo_share), ("all", 1.0)]:
        if share is None or given.photos:
            changed = replace(options, photos=given.photos if share else None, photo_share=share or 1.0)
            rate = drawn(pipeline(scenes, model, changed)[0], 100, 4)
            print(f"synthesised {label}: {rate:.0f} patches a second of one core, "
                  f"{given.rate / rate:.1f} cores for {given.rate:g} a second", flush=True)  # fmt: skip
    found = trained(sampler, options)
    print(f"{given.arch} on {given.device} ({torch.get_num_threads()} threads): "
          f"{options.steps * options.batch / found.elapsed:.1f} patches a second, "
          f"busy {100 * (1 - found.waiting):.1f} % of the time", flush=True)  # fmt: skip
    found = fed(sampler, 40, 32, given.rate)
    print(f"a trainer of {given.rate:g} patches a second, {found.workers} threads drawing: "
          f"busy {100 * (1 - found.waiting):.1f} % of the time at {40 * 32 / found.elapsed:.0f} a second")  # fmt: skip


if __name__ == "__main__":
    main()

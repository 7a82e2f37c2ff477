"""Tiled against whole: how much the result depends on ``--tile``, and whether a seam can be seen.

    python benchmarks/seams.py SCENE [--tiles 64 128 256] [--model NAME] [--picture seams.png]

Denoises SCENE untiled and with each tile size and prints, in units of the scene and of the noise that was removed, the
rms and the largest difference, over all pixels and in rows and columns within 4 pixels of a seam.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import rasterio

from hsidenoise.run import run


def main() -> None:
    """Parse, denoise, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("--tiles", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--model", default="auto")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "clean.tif"

        def denoise(tile: int) -> tuple[np.ndarray, dict]:
            record = run(given.scene, out, quiet=True, overwrite=True, tile=tile, model=given.model, dtype="float32")
            with rasterio.open(out) as result:
                return result.read()[record["bands_denoised"]].astype(np.float64), record

        whole, record = denoise(100_000)
        with rasterio.open(given.scene) as source:
            noisy = source.read()[record["bands_denoised"]].astype(np.float64)
        removed = np.sqrt(np.square(noisy - whole).mean((1, 2)))
        pictures = [(noisy - whole)[0]]
        for size in given.tiles:
            tiled, record = denoise(size)
            relative = (tiled - whole) / removed[:, None, None]
            near = np.zeros(whole.shape[1:], bool)
            for tile in record["tiles"]:
                for at, axis in ((tile["row"], 0), (tile["col"], 1)):
                    if at:  # the core begins half a feather before the seam
                        near[(slice(at, at + 8), slice(None)) if axis == 0 else (slice(None), slice(at, at + 8))] = True
            parts = [("all", np.ones_like(near)), *([("near seams", near)] if near.any() else [])]
            told = ", ".join(
                f"{name}: rms {np.sqrt(np.square(at).mean()):.4f}, largest {np.abs(at).max():.3f}"
                for name, at in ((name, relative[:, mask]) for name, mask in parts)
            )
            print(f"--tile {size}: {len(record['tiles'])} tiles; difference from untiled over rms removed: {told}",
                  flush=True)  # fmt: skip
            pictures.append((noisy - tiled)[0])
        if given.picture:
            draw(pictures, ["untiled", *(f"--tile {t}" for t in given.tiles)], given.picture)


def draw(pictures: list[np.ndarray], titles: list[str], path: Path) -> None:
    """What was removed from the first band, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(pictures), figsize=(4 * len(pictures), 4), layout="constrained")
    reach = np.percentile(np.abs(pictures[0]), 99)
    for axis, picture, title in zip(axes, pictures, titles, strict=True):
        axis.imshow(picture, cmap="gray", vmin=-reach, vmax=reach, interpolation="nearest")
        axis.set_title(title)
        axis.set_axis_off()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

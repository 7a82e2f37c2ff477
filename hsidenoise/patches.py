"""Training patches: random windows of real and synthesised cubes, augmented and made noisy.

Patch i of a run depends on the seed and on i alone, so that a resumed run sees exactly what an uninterrupted one would.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .crops import augment, crop
from .errors import TrainingError
from .mixing import Mixer
from .noise import add_noise

#: Mean squared error below which no patch is asked to get.
LEAST = 1e-6


@dataclass(frozen=True)
class Scene:
    """A clean cube in memory.

    Parameters
    ----------
    name
        Its dataset's name.
    cube
        (bands, rows, cols) float32 in [0, 1]: clean bands only, scaled by the scene's own range.
    runs
        Slices of `cube` whose bands are neighbours on the sensor.
    digest
        First 16 hex digits of the sha256 of the stored array, to prove what was trained on.
    """

    name: str
    cube: NDArray[np.float32]
    runs: tuple[slice, ...]
    digest: str


class Batch(NamedTuple):
    """Patches and how they are judged.

    Parameters
    ----------
    clean
        The bands that are judged, (N, judged, edge, edge).
    noisy
        What the network sees, (N, bands, edge, edge).
    sigma
        Noise of each of its bands, (N, bands).
    back
        The judged bands as sums of what the network makes of its own, (N, judged, bands).
    rest
        Mean squared error that is no fault of the network, added to that of each judged band, (N, judged).
    """

    clean: NDArray[np.float32]
    noisy: NDArray[np.float32]
    sigma: NDArray[np.float32]
    back: NDArray[np.float32]
    rest: NDArray[np.float32]


class Draws(Protocol):
    """Where batches come from."""

    def batch(self, step: int, size: int) -> Batch:
        """The batch of this step."""


def load_scenes(path: Path) -> list[Scene]:
    """Every cube of an ``.h5`` file of cubes.

    A cube is a 3-D dataset, axes row, column, band; the attribute ``clean_bands`` (bool per band) names the bands to
    use, all without it. Each scene is scaled to [0, 1] between its minimum and its 99.95th percentile.

    Raises
    ------
    TrainingError
        The file cannot be opened, or holds no such cube.
    """
    import h5py

    scenes = []
    try:
        with h5py.File(path) as file:
            for name, data in file.items():
                if not isinstance(data, h5py.Dataset) or data.ndim != 3:
                    continue
                array = data[()]
                clean = np.asarray(data.attrs.get("clean_bands", np.ones(array.shape[2], bool)), bool)
                scenes.append(_scene(name, array, clean))
    except OSError as error:
        raise TrainingError(f"{path}: not a readable HDF5 file of cubes ({error})") from error
    if not scenes:
        raise TrainingError(f"{path}: holds no 3-D dataset (row, column, band)")
    return scenes


def _scene(name: str, array: NDArray[np.generic], clean: NDArray[np.bool_]) -> Scene:
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], clean, [False]]).astype(int)))
    lengths = [int(stop - start) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
    starts = np.cumsum([0, *lengths])
    runs = tuple(slice(int(start), int(start) + length) for start, length in zip(starts, lengths, strict=False))
    cube = np.ascontiguousarray(array[..., clean].transpose(2, 0, 1), dtype=np.float32)
    low, high = cube.min(), np.percentile(cube, 99.95)
    return Scene(name, np.clip((cube - low) / max(high - low, 1e-12), 0, 1), runs, digest)


class Sampler:
    """Draws batches.

    Parameters
    ----------
    scenes
        Where patches come from; the chance of a scene grows with the root of its size.
    bands, edge
        Shape of a patch.
    patterns
        Noise patterns, drawn with equal chance.
    seed
        Of every draw.
    mixer, share
        Where synthesised patches come from, and how many of all they are.

    Raises
    ------
    TrainingError
        No scene is large enough.
    """

    def __init__(
        self, scenes: Sequence[Scene], *, bands: int, edge: int, patterns: Sequence[str], seed: int,
        mixer: Mixer | None = None, share: float = 0.0,
    ) -> None:  # fmt: skip
        self.bands, self.edge, self.patterns, self.seed = bands, edge, list(patterns), seed
        self.mixer, self.share = mixer, share
        self.choices = [(s, r) for s in scenes for r in s.runs if r.stop - r.start >= bands]
        if not self.choices:
            raise TrainingError(f"no scene has {bands} neighbouring clean bands")
        self.chance = chances(s.cube[r].size for s, r in self.choices)

    def batch(self, step: int, size: int) -> Batch:
        """The batch of this step."""
        return drawn(self.patch, self.seed, step, size)

    def patch(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
        """One patch, in the order of `Batch`."""
        if self.mixer and rng.random() < self.share:
            mixture = self.mixer.draw(self.bands, self.edge, rng)
            first = int(rng.integers(len(mixture.spectra) - self.bands + 1))
            clean = augment(mixture.cube(np.s_[first : first + self.bands]), rng)
            clean /= max(1, clean.max())
        else:
            scene, run = self.choices[rng.choice(len(self.choices), p=self.chance)]
            first = int(rng.integers(run.start, run.stop - self.bands + 1))
            clean = augment(crop(scene.cube[first : first + self.bands], self.edge, rng), rng)
        if rng.random() < 0.5:
            clean = np.ascontiguousarray(clean[::-1])
        if rng.random() < 0.7:
            clean *= np.float32(np.exp(rng.uniform(np.log(0.4), np.log(1.3))))
        if rng.random() < 0.3:  # a window may use little of the scene's range: stretch it, as `run` does
            low, high = clean.min(), np.percentile(clean, 99.9)
            if high - low > 0.02:
                clean = (clean - low) / (high - low)
        noisy = add_noise(clean, self.patterns[rng.integers(len(self.patterns))], rng)
        if rng.random() < 0.1:  # low noise: the network must learn to do nothing
            noisy = clean + (noisy - clean) * np.float32(rng.uniform(0, 0.2))
        sigma = (noisy - clean).std((1, 2))
        sigma *= np.exp(0.08 * rng.standard_normal(self.bands)).astype(np.float32)
        return clean, noisy, sigma, np.eye(self.bands, dtype=np.float32), np.full(self.bands, LEAST, np.float32)


def drawn(
    patch: Callable[[np.random.Generator], tuple[NDArray[np.float32], ...]], seed: int, step: int, size: int
) -> Batch:
    """A batch of patches, each with a generator of its own."""
    patches = [patch(np.random.default_rng([seed, step, i])) for i in range(size)]
    return Batch(*(np.stack(parts) for parts in zip(*patches, strict=True)))


def chances(sizes: Iterable[int]) -> NDArray[np.float64]:
    """Of drawing each cube: they grow with the root of its size."""
    weight = np.sqrt(np.fromiter(sizes, np.float64))
    chance: NDArray[np.float64] = weight / weight.sum()
    return chance


class Prefetch:
    """The batches of steps start to stop, drawn ahead.

    In threads, for NumPy releases the GIL in most of a draw; or in processes, for a trainer whose own thread has a GPU
    to keep busy and must not wait for theirs. A batch holds arrays, or from processes tensors.

    Parameters
    ----------
    sampler
        Draws them.
    start, stop, size
        Steps, and patches in a batch.
    workers
        Threads or processes; by default one for each core, 16 at most.
    processes
        Which of the two.
    """

    def __init__(
        self, sampler: Draws, start: int, stop: int, size: int, workers: int = 0, *, processes: bool = False
    ) -> None:
        self.sampler, self.start, self.stop, self.size = sampler, start, stop, size
        self.workers = workers or min(os.cpu_count() or 2, 16)
        self.processes = processes
        self.waited = self.elapsed = 0.0

    def __iter__(self) -> Iterator[Batch]:
        began = time.monotonic()
        source = self._from_processes() if self.processes else self._from_threads()
        while True:
            asked = time.monotonic()
            batch = next(source, None)
            self.elapsed = time.monotonic() - began
            if batch is None:
                return
            self.waited += time.monotonic() - asked
            yield batch

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, step: int) -> Batch:
        return self.sampler.batch(self.start + step, self.size)

    def _from_threads(self) -> Iterator[Batch]:
        draw = self.sampler.batch
        reach = 2 * self.workers
        first = range(self.start, min(self.start + reach, self.stop))
        with ThreadPoolExecutor(self.workers) as pool:
            ahead = [pool.submit(draw, step, self.size) for step in first]
            for step in range(self.start, self.stop):
                batch = ahead.pop(0).result()
                if step + reach < self.stop:
                    ahead.append(pool.submit(draw, step + reach, self.size))
                yield batch

    def _from_processes(self) -> Iterator[Batch]:
        import torch
        from torch.utils.data import DataLoader

        pinned = torch.cuda.is_available()
        yield from DataLoader(self, batch_size=None, num_workers=self.workers, pin_memory=pinned)  # type: ignore[arg-type]

    @property
    def waiting(self) -> float:
        """Share of the time so far that went by in waiting for batches."""
        return self.waited / max(self.elapsed, 1e-9)

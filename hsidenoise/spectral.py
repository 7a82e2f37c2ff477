"""From a scene's bands to what the network sees, and back: overlapping windows of neighbouring bands.

A front-end is a list of windows, each of which can `gather` a network input from a block of bands and `accumulate`
the network's output into one; summed over the list, the bands are complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .tiles import spans


@dataclass(frozen=True)
class BandWindow:
    """Neighbouring bands that go through the network together.

    Parameters
    ----------
    bands
        Zero-based bands to read, one for each input of the network. A short group is reflected: bands recur.
    keep
        Positions in the window that are used; each stands for another band.
    weights
        Blend weights of the positions kept, float32; over all windows they sum to exactly 1 for each band.
    """

    bands: tuple[int, ...]
    keep: slice
    weights: NDArray[np.float32] = field(compare=False, repr=False)

    @property
    def kept(self) -> tuple[int, ...]:
        """The bands this window contributes to."""
        return self.bands[self.keep]


def windows(groups: Sequence[Sequence[int]], size: int) -> list[BandWindow]:
    """Divide groups of bands into overlapping windows of `size` bands (band splitting, Ye et al. 2025).

    Parameters
    ----------
    groups
        Usable bands in wavelength order, zero-based. No window crosses from one group into another, so a group
        ends at every detector gap.
    size
        Bands the network takes.

    Returns
    -------
    list of BandWindow
        In the order of the groups, evenly spaced within each.

    Raises
    ------
    ValueError
        `size` below 1, or a band that occurs twice.

    Notes
    -----
    Neighbouring windows share a quarter of their bands at least. The outermost bands of a window know neighbours on
    one side only, so about a sixteenth is discarded there (2 of 31) and the rest blended, which keeps the joint out
    of narrow absorption features; a quarter costs at most a third more windows.

    A group with fewer than `size` bands stands in the middle of its window and is continued by half-sample
    reflection (... c b a | a b c | c b a ...), as often as it takes. Unlike reflection about the end band, its
    slope passes through zero at the turn, and two bands give a b b a a b b a instead of a sawtooth.
    """
    if size < 1:
        raise ValueError(f"a window of {size} bands is no window")
    flat = [band for group in groups for band in group]
    if len(set(flat)) != len(flat):
        raise ValueError("a band occurs twice in the groups")
    overlap = min(-(-size // 4), size - 1)
    edge = min(round(size / 16), overlap // 2)
    result = []
    for group in groups:
        if not group:
            continue
        left = max(size - len(group), 0) // 2
        for span in spans(len(group), size, halo=edge, feather=overlap - 2 * edge):
            first = span.start - left
            bands = tuple(group[_reflect(first + i, len(group))] for i in range(size))
            keep = slice(span.core_start - first, span.core_stop - first)
            result.append(BandWindow(bands, keep, span.weights))
    return result


def _reflect(index: int, count: int) -> int:
    """`index` folded into ``0..count-1`` by half-sample reflection."""
    index %= 2 * count
    return min(index, 2 * count - 1 - index)


def gather(block: NDArray[np.float32], window: BandWindow) -> NDArray[np.float32]:
    """The network's input: a copy ``(size, rows, cols)`` of the window's bands in `block` ``(bands, rows, cols)``."""
    return block[list(window.bands)]


def accumulate(total: NDArray[np.float32], window: BandWindow, denoised: NDArray[np.float32]) -> None:
    """Add the network's output to the bands the window contributes to.

    Parameters
    ----------
    total
        ``(bands, rows, cols)``, changed in place. Zero it before the first window that touches it.
    denoised
        ``(size, rows, cols)``, the window's bands after the network.
    """
    total[list(window.kept)] += denoised[window.keep] * window.weights[:, None, None]


@dataclass(frozen=True)
class Normalisation:
    """Map values of a window from [low, high] to [0, 1], and back. Nothing is clipped.

    Parameters
    ----------
    low, high
        In the units of the scene, from statistics of the whole scene.
    """

    low: float
    high: float

    @classmethod
    def of(cls, window: BandWindow, low: ArrayLike, high: ArrayLike) -> Normalisation:
        """From each band's low and high: the least and the greatest of the window's bands.

        Parameters
        ----------
        low, high
            Statistics per band, shape ``(bands,)``; NaN where a band has no valid sample. Without any statistic
            the normalisation is the identity.
        """
        lows, highs = (np.asarray(a, np.float64)[list(window.bands)] for a in (low, high))
        known = np.isfinite(lows) & np.isfinite(highs)
        if not known.any():
            return cls(0.0, 1.0)
        return cls(float(lows[known].min()), float(highs[known].max()))

    @property
    def scale(self) -> float:
        """Units of the scene per unit of the network; 1 where the range is below what float32 resolves."""
        span = self.high - self.low
        resolution = float(np.finfo(np.float32).eps) * max(abs(self.low), abs(self.high))
        return span if span > resolution else 1.0

    def apply(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values as the network takes them."""
        # In float64, because a small range on a large offset would lose its digits in float32.
        return ((block.astype(np.float64) - self.low) / self.scale).astype(np.float32)

    def undo(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values in the units of the scene again."""
        return (block.astype(np.float64) * self.scale + self.low).astype(np.float32)

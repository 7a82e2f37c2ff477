"""What is wrong with single samples and columns: dead and saturated pixels, impulses, dead columns, stripes.

Such samples would wreck second-order statistics and drag their neighbours along. They are found by comparing each band
with what all others predict of it (`hsidenoise.factors`), columns are moved back, and lost samples are predicted; what
is left is noise that bands have to themselves, band by band of one strength.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .factors import Array, factor_scores, leverage, loadings, noise_edge, uniqueness, with_holes

Mask = NDArray[np.bool_]

#: A value is suspect that this share of a band's samples has, and ten times as many as its neighbours in value.
SHARE, PEAK = 0.005, 10
#: Those neighbours, in the order of the values that a band has.
NEAR = np.array([0, 1, 2, 3, 4, 6, 7, 8, 9, 10])
#: Suspect values that lie scattered are impulses; in patches they are saturation or clamped shadows, which stay.
CLUSTERED = 0.3
#: Share of a band that is one patch of one value, beyond which its stripes cannot be told from the patch.
FLAT = 0.2
#: Share of a column that has one value, beyond which it is dead; most of them side by side: more are a border.
DEAD, WIDEST = 0.95, 3
#: Bands it takes to say what is wrong with one of them.
FEWEST = 8
#: Standard errors by which a column's mean, or a sample, must differ from what other bands predict.
STRIPE, IMPULSE = 6.0, 6.0
#: Typical deviation over the expected one, below which a band's noise has a heavy tail.
HEAVY = 0.5
#: Correlation of a band's column means in the upper and the lower half of the scene, beyond which all its columns are
#: striped: detectors are the same in both, the ground is not.
ALIKE = 0.6
#: Least rows to judge columns by.
ROWS = 16
#: Share of a band's samples that must be impulses before any is taken for one: a rare material is not noise.
MANY = 0.02
#: Least noise over the range of a band's values: beside a band of less, rotated in float32, all others lose digits.
FINEST = 1e-6
#: Noise of rounding to float32, over the value.
ROUNDING = float(np.finfo(np.float32).eps) * 12**-0.5
#: Least noise at all: a band whose sample shows one value, 0, is divided by it.
TINY = float(np.finfo(np.float32).tiny)
#: Pixels that statistics need at most.
ENOUGH = 16_000


@dataclass(frozen=True)
class Defects:
    """The defects of a scene, and what it takes to mend them. Bands are those of the sample.

    Parameters
    ----------
    stuck
        Values that dead or saturated samples have, by band.
    dead
        Dead columns, (bands, cols).
    offset
        What a stripe adds to a column, raw units, (bands, cols); zero elsewhere.
    spiky
        Bands with impulses of any value, (bands,).
    mean, sigma, factors
        Of the spectra without defects, raw units; `factors` as in `hsidenoise.factors`.
    lost
        Share of each band's samples that are predicted, (bands,).
    """

    stuck: tuple[NDArray[np.float32], ...] = field(repr=False)
    dead: Mask = field(repr=False)
    offset: Array = field(repr=False)
    spiky: Mask = field(repr=False)
    mean: Array = field(repr=False)
    sigma: Array = field(repr=False)
    factors: Array = field(repr=False)
    lost: Array = field(repr=False)

    def mend(self, values: NDArray[np.float32], valid: Mask, first: int) -> tuple[NDArray[np.float32], Mask]:
        """Columns moved back and lost samples predicted.

        Parameters
        ----------
        values, valid
            A block (bands, rows, cols) in raw units, and which samples are measurements at all.
        first
            Column of the scene the block starts at.

        Returns
        -------
        mended, good
            The block, and which samples are as they were measured but for a stripe's offset.
        """
        columns = slice(first, first + values.shape[2])
        moved = values - self.offset[:, None, columns].astype(np.float32)
        good = valid & ~self.lost_in(values, first)
        flat = good.reshape(len(values), -1)
        raw = ((moved - self.mean[:, None, None]) / self.sigma[:, None, None]).reshape(len(values), -1)
        white: NDArray[np.float32] = np.where(flat, raw, 0).astype(np.float32)  # a lost sample of 1e38 would overflow
        scores, _ = factor_scores(white, flat, self.factors)
        if self.spiky.any():
            hit, _ = impulses(white - self.factors @ scores, flat, self.factors)
            flat = flat & ~(hit & self.spiky[:, None])
            scores, _ = factor_scores(white, flat, self.factors)
            good = flat.reshape(values.shape)
        predicted = (self.factors @ scores).reshape(values.shape) * self.sigma[:, None, None]
        predicted += self.mean[:, None, None]
        return np.where(good | ~valid, moved, predicted.astype(np.float32)), good

    def lost_in(self, values: NDArray[np.float32], first: int) -> Mask:
        """Samples of a block that hold nothing: stuck, or in a dead column."""
        found = np.zeros(values.shape, bool)
        for b, stuck in enumerate(self.stuck):
            if stuck.size:
                found[b] = np.isin(values[b], stuck)
        found |= self.dead[:, None, first : first + values.shape[2]]
        # Where most bands are lost nothing is left to predict them from: that pixel is as it is.
        found &= found.mean(0) <= 0.5
        return found


def find(sample: NDArray[np.float32], valid: Mask, usual: Mask, rounds: int = 3) -> Defects | None:
    """Look for defects in some rows of a scene; None where there are none.

    Parameters
    ----------
    sample, valid
        (bands, rows, cols): full rows, spread over the scene. Every band has valid samples of more than one value.
    usual
        Samples to learn from, unless they are defects; the same shape.
    rounds
        Of finding stripes and learning from what they left.
    """
    bands, rows, cols = sample.shape
    if bands < FEWEST:
        return None
    stuck, dead, flat = recurring(sample, valid)
    blank = np.zeros((bands, cols))
    nothing = Defects(stuck, dead, blank, np.zeros(bands, bool), blank[:, 0], blank[:, 0], blank, blank[:, 0])
    empty = nothing.lost_in(sample, 0)
    good = valid & usual & ~empty
    sample = np.where(good, sample, np.float32(0))  # infinite and huge samples would only overflow
    offset, spiky = blank.copy(), np.zeros(bands, bool)
    keep = good
    sigma: Array | None = None
    least = np.zeros(bands)
    for last in (*[False] * (rounds - 1), True):
        moved = sample - offset[:, None].astype(np.float32)
        sigma = np.maximum(noise_of(moved, keep, sigma), least)
        mean, factors = model_of(moved, keep, sigma)
        white = ((moved - mean[:, None, None]) / sigma[:, None, None]).reshape(bands, -1).astype(np.float32)
        scores, _ = factor_scores(white, keep.reshape(bands, -1), factors)
        rest = (white - factors @ scores).reshape(sample.shape)
        if rows >= ROWS and not last:
            found = stripes(rest, good, factors)
            found[flat] = 0
            offset += sigma[:, None] * found
            rest -= found[:, None]
        hit, typical = impulses(rest.reshape(bands, -1), good.reshape(bands, -1), factors)
        spiky |= (typical < HEAVY) & (hit.sum(1) > MANY * np.maximum(good.sum((1, 2)), 1))
        # What is usual in a band is noise: taking impulses out must not take that too.
        least = np.where(spiky, np.minimum(typical, 1) * sigma, 0)
        hit[~spiky] = False
        keep = good & ~hit.reshape(sample.shape)
        if not (offset.any() or hit.any() or any(s.size for s in stuck) or dead.any()):
            return None
    assert sigma is not None
    lost = (valid & ~keep & (usual | empty)).sum((1, 2)) / np.maximum(valid.sum((1, 2)), 1)
    if not (offset.any() or lost.any()):
        return None
    return Defects(stuck, dead, offset, spiky, mean, sigma, factors, lost)


def recurring(sample: NDArray[np.float32], valid: Mask) -> tuple[tuple[NDArray[np.float32], ...], Mask, Mask]:
    """Values that dead and saturated samples have, by band; dead columns (bands, cols); bands that are half dead."""
    bands, rows, cols = sample.shape
    stuck = []
    patch = np.zeros(sample.shape, bool)
    dead = np.zeros((bands, cols), bool)
    for b in range(bands):
        values, count = np.unique(sample[b][valid[b]], return_counts=True)
        total = max(int(count.sum()), 1)
        if len(count) < 12:  # no measurement: classes, flags
            stuck.append(np.empty(0, np.float32))
            continue
        around = np.pad(count, len(NEAR) // 2, mode="reflect")
        often = np.flatnonzero((count > SHARE * total) & (count >= ROWS))
        usual = np.median(around[often[:, None] + NEAR], axis=1)
        found = []
        for v in often[count[often] > PEAK * usual]:
            here = valid[b] & (sample[b] == values[v])
            if count[v] > FLAT * total and _clustered(here):
                patch[b] |= here
            if rows >= ROWS:
                full = here.sum(0) > DEAD * np.maximum(valid[b].sum(0), 1)
                dead[b] |= full & (run_lengths(full) <= WIDEST)
                here &= ~full
            if here.mean() > SHARE and not _clustered(here):
                found.append(values[v])
        stuck.append(np.array(found, np.float32))
    patch &= patch.mean(0) <= 0.5  # where most bands are, it is a border that nobody declared
    return tuple(stuck), dead, np.asarray(patch.any((1, 2)))


def _clustered(here: Mask) -> bool:
    """Whether samples of an image lie in patches, not scattered."""
    share = here.mean()
    pairs = (here[:, 1:] & here[:, :-1]).sum() / max(here[:, 1:].sum(), 1)
    return bool(pairs - share >= CLUSTERED * (1 - share))


def run_lengths(flags: Mask) -> NDArray[np.int64]:
    """For each element the length of the run of equal ones it is in."""
    change = np.flatnonzero(np.diff(flags)) + 1
    lengths = np.diff(np.concatenate([[0], change, [len(flags)]]))
    return np.repeat(lengths, lengths)


def noise_of(sample: NDArray[np.float32], good: Mask, start: Array | None = None) -> Array:
    """Noise sigma of each band from differences of neighbours, each column's mean difference removed: no stripes.

    `start` is about what it is, where that is known. None is below what float32 can tell.
    """
    bands = len(sample)
    both = good[:, :, 1:] & good[:, :, :-1]
    difference = np.where(both, sample[:, :, 1:] - sample[:, :, :-1], 0) / np.float32(np.sqrt(2))
    if sample.shape[1] >= ROWS:
        mean = difference.sum(1) / np.maximum(both.sum(1), 1)
        difference = np.where(both, difference - mean[:, None], 0)
    difference, both = difference.reshape(bands, -1), both.reshape(bands, -1)
    least = finest(sample, good)
    if both.all():
        found = uniqueness((difference @ difference.T).astype(np.float64) / both.shape[1], both.shape[1])
        return np.asarray(np.maximum(found, least))
    step = max(both.shape[1] // ENOUGH, 1)
    sigma, _ = with_holes(
        difference[:, ::step].astype(np.float64), both[:, ::step], 15 if start is None else 4, sigma=start
    )
    return np.asarray(np.maximum(sigma, least))


def finest(sample: NDArray[np.float32], good: Mask) -> Array:
    """Noise below which a band's is not told from none; (bands,), above zero."""
    low = np.where(good, sample, np.inf).min((1, 2)).astype(np.float64)
    high = np.where(good, sample, -np.inf).max((1, 2)).astype(np.float64)
    least = np.maximum(FINEST * (high - low), ROUNDING * np.maximum(np.abs(low), np.abs(high)))
    return np.where(high >= low, np.maximum(least, TINY), TINY)


def model_of(sample: NDArray[np.float32], good: Mask, sigma: Array) -> tuple[Array, Array]:
    """Mean and factors of spectra of this noise."""
    flat, keep = sample.reshape(len(sample), -1), good.reshape(len(sample), -1)
    count = np.maximum(keep.sum(1), 1)
    mean = np.where(keep, flat, 0).sum(1, dtype=np.float64) / count
    step = 1 if keep.all() else max(flat.shape[1] // ENOUGH, 1)
    centred = (flat[:, ::step] - mean[:, None]).astype(np.float64)
    if keep.all():
        covariance = centred @ centred.T / centred.shape[1]
    else:
        _, covariance = with_holes(centred, keep[:, ::step], 4, sigma=sigma, known=True)
    edge = noise_edge(len(sample), float(np.median(keep[:, ::step].sum(1))))
    return mean, loadings(covariance, sigma, edge)


def stripes(rest: Array, good: Mask, factors: Array) -> Array:
    """Offset of each column that differs from what other bands predict, in sigmas; (bands, cols), zero elsewhere.

    Single columns that stand out, or all of a band's where the two halves of the scene agree on them.
    """
    apart = np.maximum(1 - leverage(factors, good.mean((1, 2))), 0.05)[:, None]
    count = good.sum(1)
    most = (IMPULSE * np.sqrt(apart))[:, None]  # impulses must not look like a stripe
    mean = np.where(good, np.clip(rest, -most, most), 0).sum(1) / np.maximum(count, 1) / apart
    middle = np.median(mean, 1, keepdims=True)
    spread = 1.4826 * np.median(np.abs(mean - middle), 1, keepdims=True)
    error = np.maximum(1 / np.sqrt(apart * np.maximum(count, 1)), spread)
    offset = np.zeros_like(mean)
    for b, c in zip(*np.nonzero((np.abs(mean - middle) > STRIPE * error) & (count >= ROWS // 2)), strict=True):
        column = rest[b, good[b, :, c], c]
        near = column[np.abs(column - np.median(column)) < most[b, 0, 0]]
        offset[b, c] = near.mean() / apart[b, 0] - middle[b, 0]
    half = len(rest[0]) // 2
    if half >= ROWS:
        clipped = np.where(good, np.clip(rest, -most, most), 0)
        parts = [
            _sharp(clipped[:, rows].sum(1) / np.maximum(good[:, rows].sum(1), 1) / apart)
            for rows in (slice(None, half), slice(half, None))
        ]
        both = zip(*parts, strict=True)
        alike = [np.corrcoef(top, bottom)[0, 1] if top.std() and bottom.std() else 0 for top, bottom in both]
        whole = (np.array(alike) > ALIKE) & (spread[:, 0] > 2 / np.sqrt(apart[:, 0] * np.maximum(count.max(1), 1)))
        offset[whole] = _sharp(mean)[whole]
    return np.asarray(offset)


def _sharp(means: Array) -> Array:
    """Column means (bands, cols) less their running median: shading across the scene is no stripe."""
    from scipy.ndimage import median_filter

    return np.asarray(means - median_filter(means, (1, 31), mode="reflect"))


def impulses(rest: Array, good: Mask, factors: Array) -> tuple[Mask, Array]:
    """Good samples that are far from what other bands predict, (bands, pixels); and how far usual ones are, (bands,).

    `rest` is the difference, in sigmas; the usual deviation is given over the expected one.

    Where impulses make most of a band's noise, its usual samples lie much closer than its sigma says.
    """
    expected = np.sqrt(np.maximum(1 - leverage(factors, good.mean(1)), 0.05))
    rest = np.abs(rest)
    typical = 1.4826 * np.array([np.median(r[g]) if g.any() else 0 for r, g in zip(rest, good, strict=True)])
    far: Mask = good & (rest > IMPULSE * np.minimum(typical, expected)[:, None])
    return far, typical / expected

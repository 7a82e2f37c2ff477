"""Quality: against a reference (PSNR, SSIM, SAM, ERGAS) and without one (variation of single pixels, stripes).

Arrays are ``(bands, rows, cols)`` in any linear unit. ``valid`` is a boolean array that broadcasts to them; samples
where it is false take no part. Each measure exists as a function for arrays that fit in memory and as an accumulator
that is fed windows of a scene of any size; both give the same number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SSIM_RADIUS = 5  # an 11 x 11 window: scenes are read with this much overlap on each side


# ---------------------------------------------------------------------------------------------- with a reference


class PairAccumulator:
    """PSNR, SAM and ERGAS of `y` against the reference `x`, over windows that tile the scene.

    Parameters
    ----------
    n_bands
        Number of bands in every window.
    counted
        Bands that enter means and angles, (n_bands,); all without it. Those of each band are kept for all.
    """

    def __init__(self, n_bands: int, counted: Mask | None = None) -> None:
        self._counted = np.ones(n_bands, bool) if counted is None else counted
        self._error = np.zeros(n_bands)
        self._sum = np.zeros(n_bands)
        self._count = np.zeros(n_bands, np.int64)
        self._angle = 0.0
        self._pixels = 0

    def add(self, x: Array, y: Array, valid: Mask | None = None) -> None:
        """Add one window, ``(bands, rows, cols)``; windows must not overlap."""
        dot, xx, yy = (np.zeros(x.shape[1:]) for _ in range(3))
        seen = np.zeros(x.shape[1:], bool)
        valid = None if valid is None else np.broadcast_to(valid, x.shape)
        for b in range(x.shape[0]):  # band by band: the temporaries stay one band large
            v = np.ones(x.shape[1:], bool) if valid is None else valid[b]
            p, q = np.where(v, x[b], 0).astype(np.float64), np.where(v, y[b], 0).astype(np.float64)
            self._error[b] += np.sum((p - q) ** 2)
            self._sum[b] += p.sum()
            self._count[b] += np.count_nonzero(v)
            if self._counted[b]:
                dot += p * q
                xx += p * p
                yy += q * q
                seen |= v
        self._angle += float(_angle(dot, xx, yy)[seen].sum())
        self._pixels += int(np.count_nonzero(seen))

    def mse_bands(self) -> Floats:
        """Mean squared error of each band; NaN where no sample was valid."""
        return quotient(self._error, self._count)

    def psnr_bands(self, data_range: float = 1.0) -> Floats:
        """PSNR of each band, dB, limited to 200 dB for identical bands."""
        relative: Floats = np.maximum(self.mse_bands() / data_range**2, 1e-20)
        return -10 * np.log10(relative)

    def psnr(self, data_range: float = 1.0) -> float:
        """Mean PSNR over bands, dB."""
        return _mean(self.psnr_bands(data_range)[self._counted])

    def sam(self) -> float:
        """Mean spectral angle over pixels, radians."""
        return self._angle / self._pixels if self._pixels else float("nan")

    def ergas(self, ratio: float = 1.0) -> float:
        """ERGAS, per cent (Wald 2000); `ratio` is the pixel size of `y` over that of `x`, 1 for denoising."""
        mean = quotient(self._sum, self._count)
        return float(100 * ratio * np.sqrt(_mean(quotient(self.mse_bands(), mean**2)[self._counted])))


class SSIMAccumulator:
    """SSIM of each band over windows that tile the scene.

    Exact when each window is extended by `SSIM_RADIUS` pixels on every side where the scene goes on: then the windows'
    insides, which alone are counted, tile the scene less its own border.

    Parameters
    ----------
    n_bands
        Number of bands in every window.
    data_range, origin
        The values from `origin` to `origin` + `data_range` count as black to white.
    """

    def __init__(self, n_bands: int, data_range: float = 1.0, origin: float = 0.0) -> None:
        self._range, self._origin = data_range, origin
        self._sum = np.zeros(n_bands)
        self._count = np.zeros(n_bands, np.int64)

    def add(self, x: Array, y: Array, valid: Mask | None = None) -> None:
        """Add one extended window; 11 x 11 neighbourhoods that hold an invalid sample do not count."""
        from scipy.ndimage import minimum_filter

        r = SSIM_RADIUS
        if min(x.shape[1:]) <= 2 * r:
            return
        inside = (slice(r, -r), slice(r, -r))
        valid = None if valid is None else np.broadcast_to(valid, x.shape)
        for b in range(x.shape[0]):
            v = np.ones(x.shape[1:], bool) if valid is None else valid[b]
            whole = v[inside] if v.all() else minimum_filter(v, size=2 * r + 1)[inside]
            p, q = (np.where(v, a[b].astype(np.float64) - self._origin, 0.0) / self._range for a in (x, y))
            self._sum[b] += _ssim_map(p, q)[inside][whole].sum()
            self._count[b] += np.count_nonzero(whole)

    def bands(self) -> Floats:
        """Mean SSIM of each band; NaN where no neighbourhood was whole."""
        return quotient(self._sum, self._count)


def psnr_bands(x: Array, y: Array, data_range: float = 1.0, valid: Mask | None = None) -> Floats:
    """PSNR of each band of `y` against `x`, dB: 10 log10(data_range^2 / MSE), at most 200."""
    return _pair(x, y, valid).psnr_bands(data_range)


def psnr(x: Array, y: Array, data_range: float = 1.0, valid: Mask | None = None) -> float:
    """Mean over bands of `psnr_bands`, dB."""
    return _mean(psnr_bands(x, y, data_range, valid))


def ssim_bands(x: Array, y: Array, data_range: float = 1.0, valid: Mask | None = None) -> Floats:
    """SSIM of each band (Wang et al. 2004).

    Gaussian window 11 x 11, sigma 1.5, population covariance, border of 5 cropped.
    """
    same_shape(x, y)
    total = SSIMAccumulator(x.shape[0], data_range)
    total.add(x, y, valid)
    return total.bands()


def ssim(x: Array, y: Array, data_range: float = 1.0, valid: Mask | None = None) -> float:
    """Mean over bands of `ssim_bands`; NaN for scenes under 11 x 11 pixels."""
    return _mean(ssim_bands(x, y, data_range, valid))


def sam(x: Array, y: Array, valid: Mask | None = None) -> float:
    """Spectral angle between `x` and `y`, radians, mean over pixels.

    A pixel's angle is taken over its valid bands. Against a null spectrum the angle is pi/2.
    """
    return _pair(x, y, valid).sam()


def ergas(x: Array, y: Array, ratio: float = 1.0, valid: Mask | None = None) -> float:
    """Relative global error, per cent: 100 ratio sqrt(mean over bands of MSE_b / mean(x_b)^2) (Wald 2000)."""
    return _pair(x, y, valid).ergas(ratio)


def _pair(x: Array, y: Array, valid: Mask | None) -> PairAccumulator:
    same_shape(x, y)
    total = PairAccumulator(x.shape[0])
    total.add(x, y, valid)
    return total


def same_shape(x: Array, y: Array) -> None:
    if x.ndim != 3 or x.shape != y.shape:
        raise ValueError(f"expected two (bands, rows, cols) arrays of one shape, got {x.shape} and {y.shape}")


def _angle(dot: Floats, xx: Floats, yy: Floats) -> Floats:
    cosine: Floats = dot / np.maximum(np.sqrt(xx) * np.sqrt(yy), 1e-12)
    angle: Floats = np.arccos(np.clip(cosine, -1, 1))
    return angle


def _ssim_map(p: Floats, q: Floats) -> Floats:
    from scipy.ndimage import gaussian_filter

    def blur(a: Floats) -> Floats:
        return gaussian_filter(a, 1.5, radius=SSIM_RADIUS)  # type: ignore[no-any-return]

    mp, mq = blur(p), blur(q)
    vp, vq, c = blur(p * p) - mp * mp, blur(q * q) - mq * mq, blur(p * q) - mp * mq
    c1, c2 = 0.01**2, 0.03**2
    similarity: Floats = ((2 * mp * mq + c1) * (2 * c + c2)) / ((mp * mp + mq * mq + c1) * (vp + vq + c2))
    return similarity


def quotient(a: Array, n: Array) -> Floats:
    ratio: Floats = np.divide(a, n, out=np.full(np.shape(a), np.nan), where=n > 0)
    return ratio


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


# ------------------------------------------------------------------------------------------- without a reference


class FineScaleAccumulator:
    """Deviation of each band at the scale of single pixels, image included (Immerkaer, CVIU 64, 1996).

    The mean absolute response to the 3 x 3 mask ``[1 -2 1; -2 4 -2; 1 -2 1]``, scaled to equal sigma for white noise.
    Texture adds to it, so for what noise is left it is an estimate from above, unless that noise is smooth.
    """

    def __init__(self, n_bands: int) -> None:
        self._sum = np.zeros(n_bands)
        self._count = np.zeros(n_bands, np.int64)

    def add(self, block: Array, valid: Mask) -> None:
        """Add one window, ``(bands, rows, cols)``, with its validity."""
        if min(block.shape[1:]) < 3:
            return
        for b in range(block.shape[0]):
            band, whole = block[b].astype(np.float64), valid[b]
            for axis in (0, 1):
                a, m, z = (np.take(band, np.arange(k, band.shape[axis] - 2 + k), axis) for k in range(3))
                band = a - 2 * m + z
                a, m, z = (np.take(whole, np.arange(k, whole.shape[axis] - 2 + k), axis) for k in range(3))
                whole = a & m & z
            self._sum[b] += np.abs(band).sum(where=whole)
            self._count[b] += np.count_nonzero(whole)

    def sigma(self) -> Floats:
        """Deviation of each band, in its units; NaN where no 3 x 3 neighbourhood was whole."""
        sigma: Floats = np.sqrt(np.pi / 2) / 6 * quotient(self._sum, self._count)
        return sigma


def stripes(column_means: Array, counts: Array, sigma: Array) -> Floats:
    """Stripe strength of each band: rms of its high-passed column means over what noise alone would give.

    Parameters
    ----------
    column_means
        ``(bands, cols)``: mean of each column; NaN where a column has no valid sample.
    counts
        ``(bands, cols)``: valid samples in each column.
    sigma
        ``(bands,)``: standard deviation of the noise, in the units of the means.

    Returns
    -------
    ndarray
        ``(bands,)``: about 1 for noise without stripes, more with stripes *or* image structure that runs along columns.
    """
    means, counts = np.asarray(column_means, np.float64), np.asarray(counts, np.float64)
    known = np.isfinite(means) & (counts > 0)
    filled = np.where(known, means, 0.0)
    width = 9
    local = quotient(_running_sum(filled, width), _running_sum(known.astype(np.float64), width))
    n_local = _running_sum(known.astype(np.float64), width)
    usable = known & (n_local >= 3)
    high = np.where(usable, filled - local, 0.0)
    expected = np.where(usable, (1 - 1 / np.maximum(n_local, 1)) / np.maximum(counts, 1), 0.0).sum(axis=1)
    noise = np.asarray(sigma, np.float64) ** 2 * expected
    return np.sqrt(quotient((high**2).sum(axis=1), noise))


def _running_sum(a: Floats, width: int) -> Floats:
    padded = np.pad(a, ((0, 0), (width // 2, width // 2)))
    total = np.cumsum(np.pad(padded, ((0, 0), (1, 0))), axis=1)
    return total[:, width:] - total[:, :-width]

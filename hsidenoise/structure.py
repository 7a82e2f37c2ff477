"""Is image left in what was removed? Measured without a reference, from what bands share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .metrics import Array, Floats, Mask, quotient, same_shape

DETAIL_WINDOWS = (7, 3)  # local means that separate detail from shading, and edges from detail
SHARE_FLOOR, SHARE_FLOOR_ALONE = 0.001, 0.02  # below: chance; a band alone also sees its own leftover noise
LOSS_LIMIT = 0.02  # of a band's detail energy (a seventh of its contrast): more is worth a warning
# By chance under 1 in 10 000: of chi-squared, 6 degrees of freedom (as many guides), and of the normal distribution.
CHANCE, CHANCE_ONE_SIDED = 30.0, 3.72
STANDS_OUT = 3.0  # robust deviations: 1 in 400 samples of noise
MEDIAN_SAMPLES = 20_000  # a median of as many is known to 1 %
_KINDS = ("out", "in", "strong")


class StructureAccumulator:
    """Is image left in what was removed?

    The detail (value minus the mean of its 7 x 7 neighbourhood) of the removed part of each band is regressed on the
    7 x 7 and 3 x 3 detail of the *other* denoised bands, averaged in up to three spectral groups. Image detail is
    shared by bands and noise is not, so the share of the removed energy that this explains is about 0 when noise was
    removed, whatever its level and even when it depends on the signal, and rises when edges or texture went with it.
    Row and column means are taken out first: a removed stripe is not image. With a single band its own denoised detail
    stands in, where it exceeds three robust standard deviations, so that leftover noise hardly counts.

    Where the image is smooth, the other bands' output holds hardly any detail but leftover noise, and a denoiser of all
    bands together spreads each band's noise over the others: leftovers there go with what was removed here, though no
    image does. So what is found counts only in one of two cases.

    - The *input* confirms it: the same combination of the other bands' detail, but from before denoising, goes with the
      removed part in the same direction and beyond chance. The noise there has nothing in common with this band's; and
      what of it was left in this band (A N, for a linear filter A and noise N) is missing from the removed part, so its
      sign is the opposite. The two add up to (1 - A) S - A N, where S is the image that bands share: 0 for the best
      linear filter, A = S / (S + N), above it where more image went than noise had to, negative without image. With
      a single band the mean of each sample's neighbours stands in, which does not share its noise either.
    - It is found as well where only detail counts that stands above the noise: beyond three robust deviations both of
      what was removed from the guides and of what was left in them. Few bright targets are seen there; in a smooth
      scene there is no such detail.

    It cannot see structure that exists in one band only, nor shading broader than the neighbourhood.

    Parameters
    ----------
    n_bands
        Number of bands in every window.
    active
        Indices of the bands that were denoised; the others give NaN.
    """

    def __init__(self, n_bands: int, active: Sequence[int] | None = None) -> None:
        self.active = list(range(n_bands) if active is None else active)
        n = len(self.active)
        groups = self._groups = 3 if n >= 9 else 1
        self._group = np.arange(n) * groups // max(n, 1)
        self._n_bands = n_bands
        self._scale = np.zeros(n)  # guides add bands of like weight, fixed by the first window that shows each band
        # Of the guides as they came out, as they went in, and of what stands above the noise.
        self._gram = {kind: np.zeros((n, 2 * groups, 2 * groups)) for kind in _KINDS}
        self._cross = {kind: np.zeros((n, 2 * groups)) for kind in _KINDS}
        self._removed, self._kept = np.zeros(n), np.zeros(n)
        self._power, self._lag = np.zeros(n), np.zeros((n, 2))
        self._lag_power = np.zeros((n, 2))
        self._count = np.zeros(n, np.int64)

    def add(self, before: Array, after: Array, valid: Mask | None = None) -> None:
        """Add one window, ``(bands, rows, cols)``; windows with a side under 8 pixels say nothing and are skipped."""
        if min(before.shape[1:]) < 8 or not self.active:
            return
        shape = before.shape[1:]
        valid = np.ones(before.shape, bool) if valid is None else np.broadcast_to(valid, before.shape)
        n, groups = len(self.active), self._groups
        kept, gone = (np.zeros((n, 2, *shape), np.float32) for _ in range(2))
        sums = {"out": np.zeros((groups, 2, *shape)), "in": np.zeros((groups, 2, *shape))}
        boxes: dict[tuple[int, bytes], Floats] = {}
        for i, b in enumerate(self.active):
            removed = _removed(before[b], after[b], valid[b])
            for k, width in enumerate(DETAIL_WINDOWS):
                kept[i, k] = _detail(after[b], valid[b], width, boxes)
                gone[i, k] = _detail(removed, valid[b], width, boxes)
            if self._scale[i] == 0 and (spread := float(kept[i, 0].std(dtype=np.float64))) > 0:
                self._scale[i] = 1 / spread
            kept[i] *= self._scale[i]
            gone[i] *= self._scale[i]
            sums["out"][self._group[i]] += kept[i]
            sums["in"][self._group[i]] += kept[i] + gone[i]
        for i, b in enumerate(self.active):
            v = valid[b]
            if (count := int(np.count_nonzero(v))) < 64 or self._scale[i] == 0:
                continue
            removed = _removed(before[b], after[b], v)
            fine = _detail(removed, v, DETAIL_WINDOWS[0], boxes)[v]
            g = self._group[i]
            others = {kind: total.copy() for kind, total in sums.items()}
            if n > 1:
                others["out"][g] -= kept[i]
                others["in"][g] -= kept[i] + gone[i]
            guides = {kind: total.reshape(2 * groups, *shape)[:, v] for kind, total in others.items()}
            left, noise = _deviation(guides["out"]), _deviation(guides["in"] - guides["out"])
            guides["strong"] = _beyond(guides["out"], np.maximum(left, noise))
            if n == 1:
                guides["out"] = _beyond(guides["out"], left)
                guides["in"] = np.stack([_neighbours(after[b] + removed, v)[v], np.zeros(count)])
            for kind, values in guides.items():
                self._gram[kind][i] += values @ values.T
                self._cross[kind][i] += values @ fine
            self._removed[i] += np.sum(fine * fine)
            self._kept[i] += np.sum(kept[i, 0].astype(np.float64) ** 2) / self._scale[i] ** 2
            self._count[i] += count
            for axis in (0, 1):
                a, z = (slice(None, -1), slice(1, None)) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
                both = v[a] & v[z]
                self._lag[i, axis] += np.sum(removed[a] * removed[z])
                self._lag_power[i, axis] += np.sum((removed[a] ** 2 + removed[z] ** 2) * both) / 2

    def share_bands(self) -> Floats:
        """Share of the removed detail's energy that follows the image, 0 to 1; NaN where nothing was removed."""
        share = np.full(len(self.active), np.nan)
        for i, count in enumerate(self._count):
            if count <= 2 * self._groups + 1 or self._removed[i] <= 0:
                continue
            share[i], weights = self._explained(i, "out")
            if share[i] > 0 and not self._confirmed(i, weights):
                share[i], _ = self._explained(i, "strong")
        return self._spread(share)

    def _explained(self, i: int, kind: str) -> tuple[float, Floats]:
        """Share of the removed energy that guides of this kind explain, and their weights."""
        gram, cross, n, k = self._gram[kind][i], self._cross[kind][i], self._count[i], 2 * self._groups
        weights = np.linalg.solve(gram + np.eye(k) * max(1e-9 * np.trace(gram), 1e-300), cross)
        share = cross @ weights / self._removed[i]
        return float(np.clip(1 - (1 - share) * (n - 1) / (n - k - 1), 0, 1)), weights  # adjusted R^2

    def _confirmed(self, i: int, weights: Floats) -> bool:
        """Whether the input's guides, so weighted, go with what was removed, beyond what so few samples leave open."""
        if len(self.active) == 1:
            weights = np.array([1.0, 0.0])
        gram, cross = self._gram["in"][i], self._cross["in"][i]
        uncertainty = np.sqrt(weights @ gram @ weights * self._removed[i] / self._count[i])
        return bool(weights @ cross > CHANCE_ONE_SIDED * uncertainty)

    def loss_bands(self) -> Floats:
        """Share of the image's detail energy that was removed: explained / (explained + kept), 0 to 1."""
        lost = self.share_bands()[self.active] * self._removed
        return self._spread(quotient(lost, lost + self._kept))

    def found_bands(self) -> Mask:
        """Bands where structure was removed: share above chance, and more than 2 % of the detail energy lost."""
        floor = SHARE_FLOOR_ALONE if len(self.active) == 1 else SHARE_FLOOR
        above = np.zeros(self._n_bands)
        above[self.active] = np.maximum(floor, CHANCE / np.maximum(self._count, 1))
        with np.errstate(invalid="ignore"):
            return (self.share_bands() > above) & (self.loss_bands() > LOSS_LIMIT)

    def autocorrelation_bands(self) -> Floats:
        """Lag-1 autocorrelation of the removed part, the larger of rows and columns; near 0 for white noise."""
        return self._spread(quotient(self._lag, self._lag_power).max(axis=1, initial=-1.0))

    def _spread(self, values: Floats) -> Floats:
        full = np.full(self._n_bands, np.nan)
        full[self.active] = values
        return full


def residual_structure(before: Array, after: Array, valid: Mask | None = None) -> Floats:
    """Share of the removed detail that follows the image, per band; see `StructureAccumulator`."""
    same_shape(before, after)
    total = StructureAccumulator(before.shape[0])
    total.add(before, after, valid)
    return total.share_bands()


def _detail(band: Array, valid: Mask, width: int, boxes: dict[tuple[int, bytes], Floats]) -> Floats:
    """Value minus the mean of the valid samples around it; 0 where invalid."""
    from scipy.ndimage import uniform_filter

    whole = bool(valid.all())
    values = np.where(valid, band.astype(np.float64) - _level(band, valid), 0.0)
    local = uniform_filter(values, width, mode="mirror" if whole else "constant")
    if whole:
        return values - local  # type: ignore[no-any-return]
    key = width, valid.tobytes()
    if key not in boxes:  # most scenes have one mask for all bands
        if len(boxes) > 3:
            boxes.clear()
        boxes[key] = np.maximum(uniform_filter(valid.astype(np.float64), width, mode="constant"), 1e-9)
    return np.where(valid, values - local / boxes[key], 0.0)


def _deviation(values: Floats) -> Floats:
    """Robust standard deviation of each row, (rows, 1), from an even sample."""
    step = max(1, values.shape[1] // MEDIAN_SAMPLES)
    deviation: Floats = 1.4826 * np.median(np.abs(values[:, ::step]), axis=1, keepdims=True)
    return deviation


def _beyond(values: Floats, deviation: Floats) -> Floats:
    """What stands out; 0 elsewhere."""
    return np.where(np.abs(values) < STANDS_OUT * deviation, 0.0, values)


def _neighbours(band: Array, valid: Mask) -> Floats:
    """Mean of the valid samples next to each, less that of those in 7 x 7, both without itself; 0 where invalid."""
    from scipy.ndimage import uniform_filter

    values = np.where(valid, band - _level(band, valid), 0.0)
    means = []
    for width in reversed(DETAIL_WINDOWS):
        around = width**2 * uniform_filter(values, width, mode="constant") - values
        count = np.rint(width**2 * uniform_filter(valid.astype(np.float64), width, mode="constant")) - valid
        means.append(quotient(around, count))
    return np.where(valid & np.isfinite(means[0]), means[0] - means[1], 0.0)


def _level(band: Array, valid: Mask) -> float:
    return float(band[valid].mean(dtype=np.float64)) if valid.any() else 0.0


def _removed(before: Array, after: Array, valid: Mask) -> Floats:
    """What was removed, row and column means taken out (stripes and offsets), invalid samples left at 0."""
    removed = np.where(valid, before.astype(np.float64) - after, 0.0)
    for axis in (0, 1):
        count = np.maximum(valid.sum(axis=axis, keepdims=True), 1)
        removed = np.where(valid, removed - removed.sum(axis=axis, keepdims=True) / count, 0.0)
    return removed

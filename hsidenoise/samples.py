"""Single samples: invalid ones are filled for the network and restored after it; values go back to their type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def fill(values: NDArray[np.float32], valid: NDArray[np.bool_], otherwise: NDArray[np.float64]) -> None:
    """Give invalid samples the value of the nearest valid one of their band, in place.

    A band without any gets `otherwise`. The network then sees no edge where the data end.
    """
    if valid.all():
        return
    from scipy.ndimage import distance_transform_edt

    nearest: dict[bytes, Any] = {}
    for b in range(len(values)):
        if valid[b].all():
            continue
        if not valid[b].any():
            values[b] = np.nan_to_num(otherwise[b])
            continue
        key = valid[b].tobytes()
        if key not in nearest:
            nearest = {key: distance_transform_edt(~valid[b], return_distances=False, return_indices=True)}
        values[b] = values[b][tuple(nearest[key])]


def inside(values: NDArray[np.float32], limits: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which samples of (bands, rows, cols) lie within their band's `limits` (2, bands), in float32 as they are."""
    with np.errstate(over="ignore"):  # beyond float32 there is no limit
        low, high = limits.astype(np.float32)[:, :, None, None]
    within: NDArray[np.bool_] = (values >= low) & (values <= high)
    return within


def compose(
    raw: NDArray[Any], valid: NDArray[np.bool_], usual: NDArray[np.bool_], denoised: NDArray[np.float32],
    bands: Sequence[int], dtype: str, nodata: Sequence[float | None],
) -> NDArray[Any]:  # fmt: skip
    """The output's rows: denoised where a band was and the sample is `usual`, otherwise the input's own.

    Those are the same bit for bit where the type stays; in another type they are rounded and clipped to it.
    """
    kind = np.dtype(dtype)
    out = raw.copy() if raw.dtype == kind else _convert(raw, valid, kind, nodata)
    for i, b in enumerate(bands):
        np.copyto(out[b], to_dtype(denoised[i], kind, nodata[b]), where=usual[b])
    return out


def _convert(
    raw: NDArray[Any], valid: NDArray[np.bool_], dtype: np.dtype[Any], nodata: Sequence[float | None]
) -> NDArray[Any]:
    """The input in another type; what is no number becomes the nodata value where the type has none."""
    out = np.empty(raw.shape, dtype)
    for b, band in enumerate(raw):
        blank = nodata[b] if nodata[b] is not None and dtype.kind in "iu" else 0
        other = band if dtype.kind == "f" else np.where(np.isfinite(band), band, np.array(blank).astype(band.dtype))
        out[b] = np.where(valid[b], to_dtype(band, dtype, nodata[b]), to_dtype(other, dtype, None))
    return out


def to_dtype(values: NDArray[Any], dtype: np.dtype[Any], nodata: float | None) -> NDArray[Any]:
    """Round and clip to an integer type; a measurement that lands on the nodata value moves one step off it."""
    result = _clipped(values, dtype) if dtype.kind in "iu" else values.astype(dtype)
    if nodata is not None and np.isfinite(nodata):
        hit = result == np.array(nodata).astype(dtype)
        if hit.any():
            if dtype.kind in "iu":
                step = 1 if nodata < np.iinfo(dtype).max else -1
                result[hit] = int(nodata) + step
            else:
                result[hit] = np.nextafter(np.array(nodata, dtype), np.array(0 if nodata else 1, dtype))
    return result


def _clipped(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    info = np.iinfo(dtype)
    least, most = int(info.min), int(info.max)
    if values.dtype.kind in "iu":
        own = np.iinfo(values.dtype)
        return values.clip(max(least, int(own.min)), min(most, int(own.max))).astype(dtype)
    # float64, because float32 rounds the largest 32-bit integers out of their type; it does so to 64-bit ones itself.
    top = float(most) if float(most) <= most else float(np.nextafter(float(most), 0))
    clipped: NDArray[Any] = np.clip(np.rint(np.nan_to_num(values.astype(np.float64))), float(least), top)
    return clipped.astype(dtype)

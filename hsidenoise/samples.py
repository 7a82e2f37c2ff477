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


def compose(
    raw: NDArray[Any], valid: NDArray[np.bool_], denoised: NDArray[np.float32], bands: Sequence[int], dtype: str,
    nodata: Sequence[float | None],
) -> NDArray[Any]:  # fmt: skip
    """The output's rows: denoised where a band was and the sample is valid, otherwise the input's own, bit for bit."""
    out = raw.astype(dtype, copy=True)
    for i, b in enumerate(bands):
        values = to_dtype(denoised[i], np.dtype(dtype), nodata[b])
        np.copyto(out[b], values, where=valid[b])
    return out


def to_dtype(values: NDArray[np.float32], dtype: np.dtype[Any], nodata: float | None) -> NDArray[Any]:
    """Round and clip to an integer type; a measurement that lands on the nodata value moves one step off it."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        # float64, because float32 rounds the largest 32-bit integers out of their type.
        result = np.clip(np.rint(values.astype(np.float64)), info.min, info.max).astype(dtype)
    else:
        result = values.astype(dtype)
    if nodata is not None and np.isfinite(nodata):
        hit = result == np.array(nodata).astype(dtype)
        if hit.any():
            if dtype.kind in "iu":
                step = 1 if nodata < np.iinfo(dtype).max else -1
                result[hit] = int(nodata) + step
            else:
                result[hit] = np.nextafter(np.array(nodata, dtype), np.array(0 if nodata else 1, dtype))
    return result

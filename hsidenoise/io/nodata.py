"""The nodata grammar of ``--nodata`` and what a nodata value can be in a given data type."""

from __future__ import annotations

import math

import numpy as np

from ..errors import UsageError

_NONE = {"null", "none", "nil", "nada"}


def parse(text: str) -> float | None:
    """``NUMBER | nan | null``; whole numbers stay exact.

    Raises
    ------
    UsageError
        Anything else.
    """
    word = text.strip().lower()
    if word in _NONE:
        return None
    try:
        return int(word) if word.lstrip("+-").isdecimal() else float(word)
    except ValueError:
        raise UsageError(f"--nodata {text}: give a number, nan, or null for none") from None


def fit(value: float, dtype: str) -> float | None:
    """`value` as pixels of this type (the real part of complex ones) can hold it, or ``None`` where none ever could.

    Float limits written with too few digits end a hair above the type's range; they mean its last number.
    """
    if np.dtype(dtype).kind in "fc":
        limit = float(np.finfo(dtype).max)
        if math.isfinite(value) and abs(value) > limit:
            return math.copysign(limit, value) if abs(value) <= limit * (1 + 1e-6) else None
        return float(value)
    info = np.iinfo(dtype)
    return int(value) if math.isfinite(value) and value == int(value) and info.min <= value <= info.max else None


def override(text: str, dtype: str) -> float | None:
    """The value of ``--nodata`` for pixels of `dtype`.

    Raises
    ------
    UsageError
        Not the grammar, or out of range.
    """
    value = parse(text)
    if value is None:
        return None
    fitted = fit(value, dtype)
    if fitted is None:
        raise UsageError(f"--nodata {text}: {dtype} pixels cannot hold it")
    return fitted

"""Quality gates: conditions such as ``sam>2deg`` on what a run measured, for scripts to act on."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .errors import UsageError

_GATE = re.compile(r"\s*([a-z_]+)\s*(<=|>=|<|>)\s*([-+]?\d*\.?\d+(?:e[-+]?\d+)?)\s*(deg|rad|%|dB)?\s*", re.IGNORECASE)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b, ">": lambda a, b: a > b, "<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b,
}  # fmt: skip


def _of(*path: str) -> Callable[[Mapping[str, Any]], float]:
    def look(measured: Mapping[str, Any]) -> float:
        value: Any = measured
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return math.nan if value is None else float(value)

    return look


def _share(group: str, part: str, whole: str) -> Callable[[Mapping[str, Any]], float]:
    def look(measured: Mapping[str, Any]) -> float:
        counts = measured[group]
        return float(counts[part] / counts[whole]) if counts[whole] else 0.0

    return look


#: What can be asked for: from what `run` returns as ``measured``.
MEASURES: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "sam": _of("sam_to_input"),
    "removed": _of("summary", "median_removed_over_noise"),
    "structure": _share("summary", "structure_found", "denoised"),
    "unconverged": _share("convergence", "not_converged", "tiles"),
    "snr": _of("summary", "median_snr_after_fine"),
    "psnr": _of("quality", "after", "psnr"),
    "ssim": _of("quality", "after", "ssim"),
}


class Gate(NamedTuple):
    """One condition; it is met when something is wrong."""

    text: str
    measure: str
    compare: str
    limit: float

    def met(self, measured: Mapping[str, Any]) -> bool:
        """Whether it is; what could not be measured meets none."""
        return _COMPARE[self.compare](MEASURES[self.measure](measured), self.limit)


def parse(texts: Sequence[str]) -> list[Gate]:
    """Gates of ``--fail-on``.

    Raises
    ------
    UsageError
        Not a condition, or on nothing that is measured.
    """
    gates = []
    for text in texts:
        found = _GATE.fullmatch(text)
        if found is None or found[1].lower() not in MEASURES:
            raise UsageError(f"--fail-on {text}: write it as NAME>NUMBER, NAME one of {', '.join(MEASURES)}")
        name, unit, limit = found[1].lower(), (found[4] or "").lower(), float(found[3])
        allowed = {"sam": ("deg", "rad"), "structure": ("%",), "unconverged": ("%",), "psnr": ("db",), "snr": ("db",)}
        if unit and unit not in allowed.get(name, ()):
            raise UsageError(f"--fail-on {text}: {name} is not in {found[4]}")
        limit = math.radians(limit) if unit == "deg" else limit / 100 if unit == "%" else limit
        gates.append(Gate(text.strip(), name, found[2], limit))
    return gates


def met(gates: Sequence[Gate], measured: Mapping[str, Any]) -> list[str]:
    """The texts of those that are met."""
    return [gate.text for gate in gates if gate.met(measured)]

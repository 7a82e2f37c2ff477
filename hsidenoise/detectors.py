"""Scenes of several detectors that are not one instrument: each has its own eigen-images.

Detectors look at the ground a moment or a fraction of a pixel apart and have noise of their own, so that what one saw
tells less of the other than its wavelengths suggest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engine import Engine
from .frontends import Block, EigenImages, Mask, Records
from .progress import Progress


@dataclass(frozen=True)
class Detectors:
    """Front-ends side by side, one for each detector (`hsidenoise.frontends.FrontEnd`).

    Parameters
    ----------
    fronts
        Of bands that they do not share.
    """

    fronts: tuple[EigenImages, ...]

    @property
    def bands(self) -> list[int]:
        """Those of the first detector, then of the next."""
        return [b for front in self.fronts for b in front.bands]

    @property
    def runs(self) -> int:
        """Of all detectors."""
        return sum(front.runs for front in self.fronts)

    @property
    def sigma(self) -> NDArray[np.float64]:
        """Noise of each of its bands, raw units."""
        return np.concatenate([front.eigen.sigma for front in self.fronts])

    def usual(self, values: Block, col: int) -> Mask:
        """See `FrontEnd`."""
        pairs = zip(self.fronts, self._parts(values), strict=True)
        return np.concatenate([front.usual(part, col) for front, part in pairs])

    def denoise(
        self, engine: Engine, values: Block, valid: Mask, col: int, bar: Progress | None = None
    ) -> tuple[Block, Records]:
        """See `FrontEnd`."""
        clean, records = [], []
        for front, part, known in zip(self.fronts, self._parts(values), self._parts(valid), strict=True):
            done, found = front.denoise(engine, part, known, col, bar)
            clean.append(done)
            records += found
        return np.concatenate(clean), records

    def describe(self) -> dict[str, Any]:
        """As of one front-end: ranks and defects added up, eigenvalues one after the other."""
        told = [front.describe() for front in self.fronts]
        mended = [t["defects"] for t in told]
        sizes = np.array([len(front.bands) for front in self.fronts])
        lost = np.array([m["lost_share"] for m in mended])
        return {
            "frontend": "eigen",
            "rank": sum(t["rank"] for t in told),
            "ranks": [t["rank"] for t in told],
            "eigenvalues": [value for t in told for value in t["eigenvalues"]],
            "defects": {
                "lost_share": float((lost * sizes).sum() / sizes.sum()),
                "striped_columns": sum(m["striped_columns"] for m in mended),
                "dead_columns": sum(m["dead_columns"] for m in mended),
                "bands": {band: what for m in mended for band, what in m["bands"].items()},
            },
        }

    def _parts(self, values: Any) -> list[Any]:
        """Bands apart by detector, as views."""
        return np.split(values, np.cumsum([len(front.bands) for front in self.fronts])[:-1])

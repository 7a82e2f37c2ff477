"""The shapes of DECSC that have names, and what a shape is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """The shape of a network and its solver's defaults.

    Parameters
    ----------
    bands
        Bands of a patch (B).
    shared, local
        Atoms of the 2-D dictionary K (codes S) and of the 3-D dictionary D (codes H).
    kernel, stride
        Edge of an atom and spacing of the code grid, in pixels.
    depth, heads, window, ratio
        Swin blocks of Net1, their heads, window edge in code cells, and MLP ratio.
    noise_weighted
        Whether the data term is weighted by each band's noise; False is the paper's network.
    evaluations, tolerance
        Most evaluations of f in inference, and the relative residual at which a patch counts as converged.
    frontend
        What a patch holds: ``windows`` of neighbouring bands, or ``eigen``-images.
    shrink
        Factor on the codes at each step, in (0, 1]; 1 is the paper's network.
    wiener
        Whether the reconstruction leads to the pilot of a Wiener filter (`hsidenoise.model.dct`) or is the answer.
    gains
        Width of the networks that correct the gains of that filter of eigen-images (`hsidenoise.model.gains`); 0 leaves
        them as they are.
    """

    bands: int = 31
    shared: int = 192
    local: int = 96
    kernel: int = 9
    stride: int = 7
    depth: int = 4
    heads: int = 16
    window: int = 4
    ratio: int = 4
    noise_weighted: bool = False
    evaluations: int = 20
    tolerance: float = 1e-3
    frontend: str = "windows"
    shrink: float = 1.0
    wiener: bool = False
    gains: int = 0

    def __post_init__(self) -> None:
        """Refuse shapes that no network has: configurations come from files too.

        Raises
        ------
        ValueError
            Names the field.
        """
        for name, most in LIMITS.items():
            value = getattr(self, name)
            least = 0 if name == "gains" else 1
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} {value!r} is not a whole number from {least} to {most}")
        if not isinstance(self.tolerance, float | int) or not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance {self.tolerance!r} is not between 0 and 1")
        if self.frontend not in FRONTENDS:
            raise ValueError(f"frontend {self.frontend!r} is not one of {', '.join(FRONTENDS)}")
        if not isinstance(self.shrink, float | int) or not 0 < self.shrink <= 1:
            raise ValueError(f"shrink {self.shrink!r} is not in (0, 1]")
        if type(self.wiener) is not bool:
            raise ValueError(f"wiener {self.wiener!r} is not true or false")
        if self.stride > self.kernel:
            raise ValueError(f"stride {self.stride} leaves pixels that no atom of {self.kernel} pixels covers")
        if self.shared % self.heads:
            raise ValueError(f"{self.shared} atoms do not divide into {self.heads} heads")


FRONTENDS = ("windows", "eigen")

#: The largest value of each field of a `Config`.
LIMITS = {
    "bands": 512, "shared": 1024, "local": 512, "kernel": 64, "stride": 64, "depth": 16, "heads": 64, "window": 32,
    "ratio": 8, "evaluations": 1000, "gains": 1024,
}  # fmt: skip

#: The named configurations: the paper's, and one for two CPU cores (chosen in docs/models.md).
CONFIGS: dict[str, Config] = {
    "decsc": Config(),
    "compact": Config(
        bands=16, shared=64, local=16, kernel=8, stride=4, depth=2, heads=8, ratio=2, evaluations=16,
        frontend="eigen", shrink=0.7, wiener=True, gains=64,
    ),
}  # fmt: skip

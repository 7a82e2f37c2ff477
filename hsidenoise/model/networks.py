"""The networks that can be trained, by the name of their architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from . import decsc
from .configs import CONFIGS, Config
from .decsc import DECSC
from .shrinkage import Shrinkage, ShrinkageConfig

Network: TypeAlias = DECSC | Shrinkage

#: The architecture that is no DECSC.
SHRINKAGE = "shrinkage"


def architectures() -> tuple[str, ...]:
    """All names."""
    return (*CONFIGS, SHRINKAGE)


def build(arch: str, init: str = "frame") -> Network:
    """A fresh network; `init` is how a DECSC starts (`hsidenoise.model.decsc.DECSC`)."""
    return Shrinkage(ShrinkageConfig()) if arch == SHRINKAGE else decsc.build(arch, init)


def ends_in_filter(arch: str) -> bool:
    """Whether its codes lead to the pilot of a filter, and could be judged without."""
    return arch in CONFIGS and CONFIGS[arch].wiener


def shaped(arch: str, config: Mapping[str, Any]) -> Network:
    """A network of the configuration in a card.

    Raises
    ------
    TypeError, ValueError
        There is no such configuration.
    """
    return Shrinkage(ShrinkageConfig(**config)) if arch == SHRINKAGE else DECSC(Config(**config))

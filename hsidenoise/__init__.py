"""Denoise hyperspectral and multispectral remote-sensing files, keeping their georeferencing and metadata."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["denoise", "open_cube"]


def __getattr__(name: str) -> Any:
    # Loaded when first used: `hsidenoise --help` needs none of it.
    if name in __all__:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

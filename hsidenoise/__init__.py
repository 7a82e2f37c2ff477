"""Denoise hyperspectral and multispectral remote-sensing files, keeping their georeferencing and metadata."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["denoise", "open_cube"]


def __getattr__(name: str) -> Any:
    # Loaded when first used: `hsidenoise --help` needs none of it.
    if name == "denoise":
        from .api import denoise

        return denoise
    if name == "open_cube":
        from .io import open_cube

        return open_cube
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

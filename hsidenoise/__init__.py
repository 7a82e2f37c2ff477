"""Denoise hyperspectral and multispectral remote-sensing files, keeping their georeferencing and metadata."""

__version__ = "0.1.0"

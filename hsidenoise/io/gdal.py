"""GDAL's surroundings: cache, sidecars, error and warning translation. Everything rasterio does happens in here."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from ..errors import HSIDenoiseError, ReadError, UsageError

CACHE_BYTES = 128 * 2**20
# What GDAL says of a TIFF that is cut short or overwritten where its pixels are described.
_DAMAGED = re.compile("read directory|too short|io error", re.IGNORECASE)
# What GDAL says of blocks and directories that did not reach the disk.
_LOST = re.compile("write error|error writing|seek error|cannot initialize empty blocks", re.IGNORECASE)
FAILURES = (RasterioError, CPLE_BaseError, UnicodeDecodeError, ValueError, TypeError, AttributeError, MemoryError)


def pairs(items: Sequence[str], option: str) -> dict[str, str]:
    """``NAME=VALUE`` strings as a dictionary with upper-case names.

    Raises
    ------
    UsageError
        An item holds no ``=``.
    """
    out = {}
    for item in items:
        key, sign, value = item.partition("=")
        if not sign or not key.strip():
            raise UsageError(f"--{option} {item}: write it as NAME=VALUE")
        out[key.strip().upper()] = value.strip()
    return out


def writes_float16() -> bool:
    """Whether this GDAL knows the type, which it does from 3.11 on."""
    return "float16" in rasterio.dtypes.dtype_rev


@contextmanager
def environment(config: Sequence[str] = ()) -> Iterator[None]:
    """GDAL configured for streaming: a small block cache, no chatter; `config` holds ``NAME=VALUE`` strings.

    The block cache defaults to 5 % of all memory, which would dominate what a streaming program needs; it is 128 MB
    here unless the user set ``GDAL_CACHEMAX``. GDAL writes an ``.aux.xml`` beside a file only after something was
    changed or statistics were computed; inputs are opened read-only and statistics never asked for.
    """
    options: dict[str, str | int] = dict(pairs(config, "config"))
    settled = "GDAL_CACHEMAX" in os.environ or (rasterio.env.hasenv() and "GDAL_CACHEMAX" in rasterio.env.getenv())
    cache = str(options.pop("GDAL_CACHEMAX", "" if settled else CACHE_BYTES))
    if cache.isdecimal():
        # rasterio hands the number on as bytes; GDAL's own rule is that small numbers are megabytes.
        options["GDAL_CACHEMAX"] = int(cache) if int(cache) >= 100_000 else int(cache) * 2**20
    elif cache:
        raise UsageError(f"--config GDAL_CACHEMAX={cache}: give megabytes or bytes as a whole number")
    with rasterio.Env(**options), warnings.catch_warnings():
        # A scene without georeferencing is no fault: laboratory and airborne raw data have none.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def reading(name: str, what: str = "cannot be read") -> Iterator[None]:
    """Turn whatever GDAL and rasterio raise into one `ReadError` line about `name`."""
    try:
        yield
    except HSIDenoiseError:
        raise
    except FAILURES as error:
        why = cause(error).removeprefix(f"{os.path.basename(name)}: ")
        remedy = "; fetch it again" if what.startswith("damaged") or _DAMAGED.search(why) else ""
        raise ReadError(f"{name}: {what} ({why}){remedy}") from error


def cause(error: BaseException) -> str:
    """The innermost message of a chain, on one line: rasterio's outer one often says only "see previous exception"."""
    while error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__):
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__


class _Collector(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def messages(level: int = logging.WARNING) -> Iterator[list[str]]:
    """Collect what GDAL warns of meanwhile; rasterio sends it to the ``rasterio`` logger."""
    collector = _Collector(level)
    logger = logging.getLogger("rasterio")
    before = logger.level
    if logger.getEffectiveLevel() > level:
        logger.setLevel(level)
    logger.addHandler(collector)
    try:
        yield collector.lines
    finally:
        logger.removeHandler(collector)
        logger.setLevel(before)


@contextmanager
def closing() -> Iterator[None]:
    """Closing a file writes what still waits in GDAL's cache; rasterio only logs it, as information, if that fails.

    Raises
    ------
    OSError
        Something did not reach the disk.
    """
    with messages(logging.INFO) as said:
        yield
    for line in said:
        if _LOST.search(line):
            raise OSError((line.partition("msg=")[2] or line).strip("'\""))

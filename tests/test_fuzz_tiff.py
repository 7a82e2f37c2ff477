"""TIFF files with anything wrong in their directories: one of the package's own errors, or pixels and a true copy.

`CASES` draws files and `check` examines one; a longer run gives `given(CASES)` more examples. Each goes through a
process that may crash: the libraries below are in C.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import rasterio
import tifffile
from fuzzing import NUMBERS, Worker, mutations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.io import MemoryFile

TAGS = [254, 256, 257, 258, 259, 262, 270, 273, 277, 278, 279, 282, 284, 285, 305, 317, 320, 322, 323, 324, 325, 330,
        338, 339, 347, 33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113, 50844]  # fmt: skip
TYPES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 18, 0, 255]
OPTIONS: list[dict[str, Any]] = [{}, {}, {}, {"axes": "byx"}, {"axes": "0byx"}, {"variable": "1"}, {"nodata": "nan"},
                                 {"allow_large": True}]  # fmt: skip


class Case(NamedTuple):
    """A damaged file and what is done with it."""

    data: bytes
    options: dict[str, Any]
    output: str


@cache
def seeds() -> dict[str, bytes]:
    """Whole little files: layouts, types and compressions of GDAL, and stacks of pages of tifffile."""
    cube = np.arange(3 * 20 * 24).reshape(3, 20, 24)
    found = {}
    for name, dtype, profile in (
        ("strips", "int16", {"interleave": "band"}),
        ("pixel", "uint16", {"interleave": "pixel", "compress": "lzw", "predictor": 2}),
        ("tiles", "float32", {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}),
        ("big", "uint8", {"BIGTIFF": "YES", "compress": "packbits"}),
        ("bits", "uint8", {"nbits": 5, "compress": "zstd"}),
        ("motorola", "int32", {"ENDIANNESS": "BIG", "nodata": -1}),
        ("jpeg", "uint8", {"compress": "jpeg", "interleave": "pixel", "photometric": "ycbcr"}),
    ):
        with MemoryFile() as memory:
            plain = {"driver": "GTiff", "width": 24, "height": 20, "count": 3, "dtype": dtype, "crs": "EPSG:32633"}
            grid = rasterio.Affine(30, 0, 500000, 0, -30, 4000000)
            with memory.open(transform=grid, **plain, **profile) as file:
                file.write((cube % 31 if name == "bits" else cube % 251).astype(dtype))
                for i in (1, 2, 3):
                    file.update_tags(i, wavelength=str(400 + i), wavelength_units="nm")
            found[name] = memory.read()
    for name, dtype, stack in (
        ("pages", "uint16", {"metadata": None, "photometric": "minisblack"}),
        ("packed pages", "float32", {"metadata": None, "photometric": "minisblack", "compression": "zlib"}),
        ("shaped", "uint16", {"photometric": "minisblack"}),
        ("imagej", "uint16", {"imagej": True, "metadata": {"axes": "ZYX"}}),
        ("ome", "uint16", {"ome": True, "metadata": {"axes": "ZYX"}, "photometric": "minisblack"}),
    ):
        memory = io.BytesIO()
        tifffile.imwrite(memory, cube.astype(dtype), **stack)
        found[name] = memory.getvalue()
    return found


def entries(data: bytes) -> Iterator[tuple[int, bool, str]]:
    """Where the entries of all directories lie, whether they are BigTIFF's, and their byte order."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    for _ in range(8):
        if not at:
            break
        count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
        first = at + (8 if big else 2)
        for i in range(count):
            yield first + i * (20 if big else 12), big, order
        at = struct.unpack_from(order + ("Q" if big else "I"), data, first + count * (20 if big else 12))[0]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file with some tags, types, counts, values or links of its directories replaced, and perhaps some bytes."""
    data = bytearray(seeds()[draw(st.sampled_from(sorted(seeds())))])
    places = list(entries(bytes(data)))
    for _ in range(draw(st.integers(0, 4))):
        at, big, order = draw(st.sampled_from(places))
        word = order + ("Q" if big else "I")
        number = draw(st.sampled_from([*NUMBERS, len(data) - 1, len(data), at, 2**63, 2**64 - 1]))
        number %= 2**64 if big else 2**32
        match draw(st.sampled_from(["tag", "type", "count", "value", "value", "small", "next"])):
            case "tag":
                struct.pack_into(order + "H", data, at, draw(st.sampled_from(TAGS)))
            case "type":
                struct.pack_into(order + "H", data, at + 2, draw(st.sampled_from(TYPES)))
            case "count":
                struct.pack_into(word, data, at + 4, number)
            case "value":
                struct.pack_into(word, data, at + (12 if big else 8), number)
            case "small":
                struct.pack_into(order + "H", data, at + (12 if big else 8), number % 2**16)
            case "next":  # behind the last entry of a directory lies the link to the next one
                struct.pack_into(word, data, at + (20 if big else 12), number)
    return draw(mutations(bytes(data), 2)) if draw(st.booleans()) else bytes(data)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A damaged file and what is done with it."""
    output = draw(st.sampled_from(["", "b.tif", "b.tif", "b.img"]))
    return Case(draw(damaged()), draw(st.sampled_from(OPTIONS)), output)


CASES = cases()


def check(case: Case, worker: Worker) -> None:
    """Examine one case in the worker's process."""
    worker.examine({"a.tif": case.data}, "a.tif", case.options, case.output)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    process = Worker()
    yield process
    process.close()


@settings(
    max_examples=300, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)  # fmt: skip
@given(case=CASES)
def test_damaged_directories_raise_nothing_of_their_own(case: Case, worker: Worker) -> None:
    check(case, worker)

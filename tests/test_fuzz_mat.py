"""MATLAB files with anything wrong in them: one of the package's own errors, or pixels; never more, and never for long.

`CASES` draws damaged files and `check` opens one; a longer run gives `given(CASES)` more examples.
"""

from __future__ import annotations

import io
import math
import os
import resource
import struct as packing
import tempfile
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matfiles import MATLAB, header, matrix, packed, struct

from hsidenoise.cube import Window
from hsidenoise.errors import HSIDenoiseError, HSIDenoiseWarning
from hsidenoise.io import create_cube, open_cube

SECONDS, MEGABYTES = 10, 400
LARGEST = 2**20  # samples; larger scenes are read in part and not copied
NUMBERS = [0, 1, 2, 3, 4, 7, 8, 14, 15, 16, 17, 32, 255, 256, 1000, 65535, 65536, 2**24, 2**31 - 8, 2**31 - 1, 2**31,
           2**32 - 8, 2**32 - 1]  # fmt: skip
WAYS = ["byte", "number", "number", "aligned", "aligned", "cut", "lose", "double", "zero"]
OPTIONS = [{}, {}, {"shape": "5x6"}, {"variable": "img"}, {"variable": "s.img"}, {"axes": "yx"}, {"axes": "0byx"},
           {"allow_large": True}]  # fmt: skip


class Case(NamedTuple):
    """A damaged file and how it is opened."""

    data: bytes
    options: dict[str, Any]
    copied: bool


@cache
def seeds() -> dict[str, tuple[bytes, ...]]:
    """Whole files in parts: those of version 5 as header and elements, before any are compressed."""
    cube = np.arange(120.0).reshape(5, 6, 4)
    names = {"img": cube.astype("uint16"), "wavelength": np.arange(400.0, 404)[None], "bbl": np.ones((1, 4)) > 0}
    odd = {"cell": np.array([1, "a", cube], object), "sp": scipy.sparse.eye_array(3), "z": cube * 1j, "text": "words"}
    old = io.BytesIO()
    scipy.io.savemat(old, {"img": cube.reshape(30, 4), "units": "nm", "wl": np.arange(400.0, 404)[None]}, format="4")
    new = io.BytesIO()
    scipy.io.savemat(new, names | odd | {"many": np.ones((2, 3, 4, 5)), "units": "nm"})
    parts = {"4": (old.getvalue(),), "scipy": (new.getvalue(),)}
    for order, word in (("<", "little"), (">", "big")):
        inside = {"img": matrix("", cube, stored="i2", order=order), "wl": matrix("", np.ones((1, 4)), order=order)}
        parts[word] = (
            header(order), matrix("img", cube, stored="u1", order=order), struct("s", inside, order),
            matrix("wavelength_nm", names["wavelength"], order=order),
        )  # fmt: skip
    for word, options in (("7.3", {}), ("7.3 packed", {"chunks": (2, 3, 5), "compression": "gzip"})):
        parts[word] = (_hdf5(names["img"], **options),)
    return parts


def _hdf5(cube: Any, **options: Any) -> bytes:
    memory = io.BytesIO()
    with h5py.File(memory, "w", userblock_size=512) as file:
        arrays = {"img": cube, "s/img": cube.astype("f4"), "Y": cube.reshape(30, 4), "wl": np.ones((1, 4))}
        for name, array in arrays.items():
            data = file.create_dataset(name, data=array.T, **(options if array.ndim > 2 else {}))
            data.attrs["MATLAB_class"] = np.bytes_(MATLAB.get(array.dtype.name, array.dtype.name))
        file["s"].attrs["MATLAB_class"] = np.bytes_("struct")
    head = b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM"
    return head + memory.getvalue()[len(head) :]


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """A few changes anywhere: bytes, numbers of the format, parts lost, doubled or moved, an end too soon."""
    out = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        if not out:
            break
        at = draw(st.integers(0, len(out) - 1))
        length = draw(st.sampled_from([1, 4, 8, 16, 56]))
        match draw(st.sampled_from(WAYS)):
            case "byte":
                out[at] = draw(st.integers(0, 255))
            case "number":
                out[at : at + 4] = packing.pack(draw(st.sampled_from("<>")) + "I", draw(st.sampled_from(NUMBERS)))
            case "aligned":
                at = at // 4 * 4
                out[at : at + 4] = packing.pack(draw(st.sampled_from("<>")) + "I", draw(st.sampled_from(NUMBERS)))
            case "cut":
                del out[at:]
            case "lose":
                del out[at : at + length]
            case "double":
                out[at:at] = out[at : at + length]
            case "zero":
                out[at : at + length] = bytes(length)
    return bytes(out)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A file of some version with damage, inside compressed variables too."""
    kind = draw(st.sampled_from(sorted(seeds())))
    parts = list(seeds()[kind])
    if len(parts) > 1:
        order = "<" if kind == "little" else ">"
        chosen = draw(st.integers(1, len(parts) - 1))
        parts[chosen] = draw(mutations(parts[chosen]))
        if draw(st.booleans()):
            parts[1:] = [packed(part, order) for part in parts[1:]]
        if draw(st.booleans()):
            parts[chosen] = draw(mutations(parts[chosen]))
        data = b"".join(parts)
    else:
        data = draw(mutations(parts[0]))
    return Case(data, draw(st.sampled_from(OPTIONS)), draw(st.booleans()))


CASES = cases()


def check(case: Case) -> None:
    """Open a case, read it and copy it."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", HSIDenoiseWarning)
        path = Path(folder, "a.mat")
        path.write_bytes(case.data)
        try:
            with open_cube(path, **case.options) as scene:
                bands, rows, cols = scene.shape
                scene.read(Window(0, min(rows, 16), 0, min(cols, 16)), range(min(bands, 64)))
                small = math.prod(scene.shape) < LARGEST
            if small and case.copied:
                _copy(path, Path(folder, "b.mat"), case.options)
        except HSIDenoiseError as error:
            said = str(error)
            assert said.isprintable(), said
            assert len(said) < 2000, said
            assert sorted(os.listdir(folder)) == ["a.mat"]
        assert path.read_bytes() == case.data
    assert time.monotonic() - start < SECONDS


def _copy(path: Path, out: Path, options: dict[str, Any]) -> None:
    with open_cube(path, **options) as scene:
        before = scene.raw()
        with create_cube(out, scene) as writer:
            writer.write(0, before)
    with open_cube(out, **options) as scene:
        assert np.array_equal(scene.raw(), before, equal_nan=True)


@settings(
    max_examples=300, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(CASES)
def test_damaged_files_raise_nothing_of_their_own(case: Case) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check(case)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024

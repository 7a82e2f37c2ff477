"""What the fuzz tests of ENVI and TIFF share: one damaged file through the package, here or in a process of its own."""

from __future__ import annotations

import base64
import json
import math
import os
import resource
import select
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
SECONDS, MEGABYTES = 5, 400
LARGEST = 2**20  # samples; larger scenes are read in part and not copied
NUMBERS = [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 32, 64, 255, 256, 1000, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1,
           2**31, 2**32 - 1]  # fmt: skip


def examine(files: Mapping[str, bytes], name: str, options: Mapping[str, Any], output: str = "") -> str:
    """Write `files`, open `name` among them, read it and copy it to `output`; what it says if that is refused.

    Raises
    ------
    AssertionError
        Nothing of this may happen: a line that is none, files left behind or changed, another scene in the copy, time.
    Exception
        Whatever is no `HSIDenoiseError`.
    """
    from hsidenoise.cube import Window
    from hsidenoise.errors import HSIDenoiseError, HSIDenoiseWarning
    from hsidenoise.io import create_cube, open_cube

    said = ""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("error")
        warnings.simplefilter("always", HSIDenoiseWarning)
        into, out = Path(scratch, "in"), Path(scratch, "out")
        into.mkdir()
        out.mkdir()
        for file, data in files.items():
            (into / file).write_bytes(data)
        try:
            with open_cube(into / name, **options) as scene:
                bands, rows, cols = scene.shape
                scene.read(Window(0, min(rows, 16), 0, min(cols, 16)), range(min(bands, 64)))
                if output and math.prod(scene.shape) < LARGEST:
                    before = scene.raw()
                    with create_cube(out / output, scene) as writer:
                        writer.write(0, before)
                    same = "copy" in scene.layout and Path(output).suffix in scene.layout["suffixes"]
                    with open_cube(out / output, **(options if same else {})) as copied:
                        assert np.array_equal(copied.raw(), before, equal_nan=before.dtype.kind == "f")
        except HSIDenoiseError as error:
            said = str(error).replace(scratch, "")
            assert os.listdir(out) == []
        for line in (said, *(str(w.message) for w in warned)):
            assert line.isprintable(), line
            assert len(line) < 1000, line
        assert {p.name: p.read_bytes() for p in into.iterdir()} == dict(files)
    assert time.monotonic() - start < SECONDS
    return said


class Worker:
    """A process that examines cases, so that a crash or a hang ends it and not the tests; a new one follows."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def examine(self, files: Mapping[str, bytes], name: str, options: Mapping[str, Any], output: str = "") -> None:
        """As `examine`; a crash, a hang and too much memory are failures, too."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            self._ask({})
        coded = {file: base64.b64encode(data).decode() for file, data in files.items()}
        found = self._ask({"files": coded, "name": name, "options": options, "output": output})
        assert not found["failure"], found["failure"]
        if found["megabytes"] > MEGABYTES:
            self.close()
        assert found["megabytes"] <= MEGABYTES

    def _ask(self, case: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(case).encode() + b"\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], 60 if not case else 3 * SECONDS)
        answer = self._process.stdout.readline() if ready else b""
        if not answer:
            if not ready:
                self._process.kill()
            code = self._process.wait()
            self.close()
            raise AssertionError(f"no answer: {'the process crashed' if ready else 'it hangs'} (exit code {code})")
        found: dict[str, Any] = json.loads(answer)
        return found


@st.composite
def mutations(draw: st.DrawFn, data: bytes, most: int = 4) -> bytes:
    """A few changes anywhere: bytes, numbers, parts lost, doubled or blanked, an end too soon."""
    out = bytearray(data)
    for _ in range(draw(st.integers(0, most))):
        if not out:
            break
        at = draw(st.integers(0, len(out) - 1))
        length = draw(st.sampled_from([1, 2, 4, 12, 40]))
        match draw(st.sampled_from(["byte", "byte", "number", "cut", "lose", "double", "zero"])):
            case "byte":
                out[at] = draw(st.integers(0, 255))
            case "number":
                out[at : at + 4] = struct.pack(draw(st.sampled_from("<>")) + "I", draw(st.sampled_from(NUMBERS)))
            case "cut":
                del out[at:]
            case "lose":
                del out[at : at + length]
            case "double":
                out[at:at] = out[at : at + length]
            case "zero":
                out[at : at + length] = bytes(length)
    return bytes(out)


def _main() -> None:
    import hsidenoise.io.pages
    import hsidenoise.io.write
    import hsidenoise.io.write_gtiff  # noqa: F401

    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
    base = 0
    for line in sys.stdin:
        case = json.loads(line)
        failure = ""
        if case:
            files = {file: base64.b64decode(data) for file, data in case.pop("files").items()}
            try:
                examine(files, **case)
            except BaseException:
                failure = traceback.format_exc()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        base = base or peak
        print(json.dumps({"failure": failure, "megabytes": peak - base}), flush=True)


if __name__ == "__main__":
    _main()

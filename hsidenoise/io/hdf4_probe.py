"""Does the HDF4 library survive this file? Asked in a process of its own.

Damaged directories make the library write beyond its buffers (about one in a hundred files with a few random bytes),
which ends the process without a word. One that is no more than a question may end like that.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from ..errors import ReadError
from .hdf4_file import File

_SECONDS = 60  # a whole directory takes less than one
_REFUSED = 4  # its exit code when it says why


def check(name: str) -> None:
    """Open the file, describe all of it, read the first value of each data set and close it, in another process.

    Where that fails, this process never sees the file: failures leave the library in a state that ends worse later.

    Raises
    ------
    ReadError
        The other process says why it cannot read the file, crashed, or did not come back.
    """
    if not sys.executable or getattr(sys, "frozen", False):  # inside of a program that is no Python
        return
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    # -P: a folder full of data is no place to import modules from.
    command = [sys.executable, "-P", "-m", __name__, name]
    try:
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": paths}, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ReadError(f"{name}: damaged, the HDF4 library does not come back from reading it") from None
    if done.returncode == _REFUSED:
        raise ReadError(os.fsdecode(done.stdout))
    # Python itself ends with 0 to 3; a crash is a signal (negative here) or a large code of Windows.
    if not 0 <= done.returncode <= 3:
        raise ReadError(f"{name}: damaged, the HDF4 library crashes on it; fetch it again")


def main(path: str) -> None:
    """What the other process does."""
    try:
        file = File(path)
        for array in file.arrays():
            # Failing at one (SZIP is not in every library) is no reason against the others.
            with contextlib.suppress(ReadError):
                _ = file.values(array)[(0,) * len(array.shape)] if not array.flaw else None
        file.attributes()
        file.close()
    except ReadError as error:
        sys.stdout.buffer.write(os.fsencode(str(error)))
        sys.stdout.flush()
        os._exit(_REFUSED)  # without the library's own end, which may crash


if __name__ == "__main__":
    main(sys.argv[1])

"""Does the HDF4 library survive this file? Asked in a process of its own.

Damaged directories make the library write beyond its buffers (about one in a hundred files with a few random bytes),
which ends the process without a word. One that is no more than a question may end like that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ..errors import HSIDenoiseError, ReadError
from .hdf4_file import File

_SECONDS = 60  # a whole directory takes less than one


def check(name: str) -> None:
    """Open the file, describe all of it, read the first value of each data set and close it, in another process.

    Raises
    ------
    ReadError
        That process crashed or did not come back.
    """
    if not sys.executable:  # embedded in a program that is no Python
        return
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, os.path.abspath(name)], env=os.environ | {"PYTHONPATH": paths},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ReadError(f"{name}: damaged, the HDF4 library does not come back from reading it") from None
    # Python itself ends with 0 to 3; a crash is a signal (negative here) or a large code of Windows.
    if not 0 <= done.returncode <= 3:
        raise ReadError(f"{name}: damaged, the HDF4 library crashes on it; fetch it again")


def main(path: str) -> None:
    """What the other process does."""
    try:
        file = File(path)
        for array in file.arrays():
            if not array.flaw:
                _ = file.values(array)[(0,) * len(array.shape)]
        file.attributes()
        file.close()
    except HSIDenoiseError:
        pass  # the asking process will find the same, and can say it better


if __name__ == "__main__":
    main(sys.argv[1])

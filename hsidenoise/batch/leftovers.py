"""What lies beside an output while it is made, and is removed after a crash."""

from __future__ import annotations

import glob
import secrets
import shutil
from contextlib import suppress
from pathlib import Path


def folder_for(output: str) -> Path:
    """A new folder for the strips of an output, hidden beside it."""
    path = Path(output)
    folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    folder.mkdir()
    return folder


def clear(path: Path) -> None:
    """Remove such a folder, or any other leftover of an output; work that goes on in it all the same soon ends."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    gone = path.with_name(path.name + "~")
    with suppress(OSError):
        path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def clear_all(output: Path) -> None:
    """Remove whatever of an output that nobody works on was left unfinished."""
    for stale in output.parent.glob(f".{glob.escape(output.name)}.*.part*"):
        clear(stale)

"""Which scenes a batch is about, and where each one's output goes."""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from ..settings import BatchOptions

#: Suffixes of files that may be scenes, when a folder is searched. What a file is, is told by its content later.
SUFFIXES = {
    ".tif", ".tiff", ".vrt", ".jp2", ".j2k", ".img", ".dat", ".bsq", ".bil", ".bip", ".raw", ".mat", ".h5", ".hdf5",
    ".he5", ".nc", ".nc4", ".cdf", ".hdf", ".he4", ".l1r",
}  # fmt: skip
#: What is written in place of a format that is only read.
_WRITTEN = {".vrt": ".tif", ".jp2": ".tif", ".j2k": ".tif"}
_OF = {"gtiff": ".tif", "cog": ".tif", "envi": ".img", "netcdf": ".nc"}
#: The folder in which a batch keeps its own books, and the page of its results.
BOOKS = ".hsidenoise"
PAGE = "batch-report.html"


class Scene(NamedTuple):
    """A scene of a batch.

    Parameters
    ----------
    source
        Its path, as given or found.
    output
        Its output's path below the output folder, with slashes.
    """

    source: str
    output: str


def find(names: Iterable[str], folder: Path, options: BatchOptions) -> list[Scene]:
    """Scenes by name, pattern, folder or (``-``) from standard input, in the order of their outputs.

    Folders are searched through all their sub-folders, which the output folder then mirrors; so are patterns below
    their first wildcard. A name that is given is a scene whatever its suffix.

    Raises
    ------
    UsageError
        Two scenes would have one output, a name escapes the output folder, or nothing was found.
    """
    found: dict[str, str] = {}
    for source, relative in _all(names, folder):
        output = _output(relative, options)
        if os.path.isabs(output) or ".." in Path(output).parts:
            raise UsageError(f"{source}: its output would leave {folder}; give the folder it is in")
        if output == PAGE or Path(output).parts[:1] == (BOOKS,):
            raise UsageError(f"{source}: its output would be {folder / output}, which is the batch's own; rename it")
        other = found.setdefault(output, source)
        if other != source and os.path.realpath(other) != os.path.realpath(source):
            raise UsageError(
                f"{other!r} and {source!r} would both be written to {output}; run them into different folders"
            )
    if not found:
        raise UsageError("no scenes: give files, patterns or folders, or names on standard input with -")
    part, parts = shard(options.shard)
    return [Scene(found[o], o) for o in sorted(found) if _number(o) % parts == part - 1]


def _number(output: str) -> int:
    """One that spreads names evenly, however alike they are: a checksum gives numbered scenes a few shards of many."""
    return int.from_bytes(hashlib.sha256(os.fsencode(output)).digest()[:8])


def shard(text: str) -> tuple[int, int]:
    """``K/N`` of ``--shard``, counted from 1; the whole for an empty text.

    Raises
    ------
    UsageError
        Not that, or K not among 1 to N.
    """
    if not text:
        return 1, 1
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise UsageError(f"--shard {text}: write it as K/N, K from 1 to N")
    return int(first), int(second)


def _all(names: Iterable[str], folder: Path) -> Iterator[tuple[str, str]]:
    """Sources, and their paths relative to where the search began."""
    for name in names:
        if name == "-":
            yield from _all(_listed(), folder)
        elif os.path.isdir(name):
            yield from _walk(name, folder)
        elif os.path.lexists(name) or not glob.has_magic(name):
            yield name, os.path.basename(name)
        else:
            yield from _matching(name)


def _listed() -> list[str]:
    """Names on standard input: a line each, or ended by NUL where there is one, for names with newlines."""
    text = sys.stdin.buffer.read()
    parts = text.split(b"\0") if b"\0" in text else text.splitlines()
    return [os.fsdecode(part) for part in parts if part.strip()]


def _walk(top: str, folder: Path) -> Iterator[tuple[str, str]]:
    books = os.path.realpath(folder)
    closed: list[str] = []
    for path, folders, files in os.walk(top, onerror=lambda error: closed.append(str(error.filename))):
        # Outputs of an earlier batch into a folder below are no scenes.
        folders[:] = sorted(f for f in folders if not f.startswith(".") and os.path.realpath(f"{path}/{f}") != books)
        for file in sorted(files):
            if _may_be_scene(file, files):
                source = os.path.join(path, file)
                yield source, os.path.relpath(source, top)
    # What cannot be searched may hold scenes: it fails as one, and is named.
    yield from ((path, os.path.relpath(path, top) if path != top else os.path.basename(path)) for path in closed)


def _may_be_scene(file: str, beside: Sequence[str]) -> bool:
    if file.startswith("."):
        return False
    stem, suffix = os.path.splitext(file)
    if suffix.lower() in SUFFIXES:
        return True
    if suffix.lower() == ".hdr":  # a header alone is a scene without its data, which should be told
        return not any(other == stem or (other != file and os.path.splitext(other)[0] == stem) for other in beside)
    return file + ".hdr" in beside or file + ".HDR" in beside


def _matching(pattern: str) -> Iterator[tuple[str, str]]:
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    top = os.path.join(*parts[:fixed]) if fixed else "."
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise UsageError(f"{pattern}: matches nothing")
    for source in matches:
        if os.path.isfile(source):
            yield source, os.path.relpath(source, top)


def _output(relative: str, options: BatchOptions) -> str:
    stem, suffix = os.path.splitext(relative)
    if suffix.lower() == ".hdr":
        suffix = ".img"
    elif suffix.lower() not in SUFFIXES:
        stem, suffix = relative, ""
    suffix = _OF.get(options.of.lower(), _WRITTEN.get(suffix.lower(), suffix))
    return (stem + options.suffix + suffix).replace(os.sep, "/")

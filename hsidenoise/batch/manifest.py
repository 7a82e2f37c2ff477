"""The record of a batch: JSON lines, only ever appended to, each on disk before the batch goes on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import WriteError

NAME = "manifest.jsonl"


class Identity(NamedTuple):
    """What tells an input or output from another of the same name: size, time of change, and its sha256 if known."""

    size: int
    mtime_ns: int
    sha256: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return {name: value for name, value in self._asdict().items() if value != ""}

    def same(self, other: Identity | None) -> bool:
        """Whether two are one: by content where both know it, else by size and time."""
        if other is None:
            return False
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return self[:2] == other[:2]


def identity(path: str | os.PathLike[str], *, checksum: bool) -> Identity:
    """Of a file as it is now.

    Raises
    ------
    OSError
        It is not there, or cannot be read.
    """
    found = os.stat(path)
    if not (checksum and os.path.isfile(path)):
        return Identity(found.st_size, found.st_mtime_ns)
    with open(path, "rb") as file:
        return Identity(found.st_size, found.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())


class Last(NamedTuple):
    """Of an output's records what decides about doing it again.

    Parameters
    ----------
    status, key, input
        Of the last one.
    result
        The output, of the last one that knew it.
    at
        Where the last one begins in the manifest, in bytes.
    """

    status: str
    key: str
    input: Identity | None
    result: Identity | None
    at: int


class Manifest:
    """The manifest of an output folder; several batches may share it.

    Parameters
    ----------
    path
        The file; made when the first record is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0
        self._latest: dict[str, Last] = {}

    def latest(self) -> dict[str, Last]:
        """The last of each output, with what others have added since. Broken lines, of a crash, are skipped."""
        with _opened(self.path, "rb") as file:
            if file is not None:
                file.seek(self._at)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # still being written
                    record = _parsed(line)
                    if record is not None:
                        output = record["output"]
                        self._latest[output] = _last(record, self._at, self._latest.get(output))
                    self._at += len(line)
        return self._latest

    def records(self) -> Iterator[dict[str, Any]]:
        """The last records themselves, one at a time: together those of an archive fill the memory."""
        places = sorted(last.at for last in self.latest().values())
        with _opened(self.path, "rb") as file:
            for at in places:
                file.seek(at)
                record = _parsed(file.readline())
                if record is not None:
                    yield record

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one record, which must name its ``output``, and wait until it is on disk.

        Raises
        ------
        WriteError
            The disk is full or gone.
        """
        line = json.dumps(record, default=str, allow_nan=False).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file, _locked(file):
                end = file.seek(0, os.SEEK_END)
                if end:
                    file.seek(end - 1)
                    if file.read(1) != b"\n":  # a crash cut the last line short
                        line = b"\n" + line
                if file.write(line) != len(line):
                    raise OSError("disk full")
                os.fsync(file.fileno())
        except OSError as error:
            raise WriteError(f"{self.path}: cannot be written ({error.strerror or error})") from error


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("output"), str) else None


def _last(record: Mapping[str, Any], at: int, before: Last | None) -> Last:
    # Interned: thousands of records share them.
    status, key = (sys.intern(str(record.get(name, ""))) for name in ("status", "key"))
    # A later try that fails leaves an earlier output where it is, and the batch's own.
    result = _identity(record.get("result")) or (before and before.result)
    return Last(status, key, _identity(record.get("input")), result, at)


def _identity(told: Any) -> Identity | None:
    if not isinstance(told, dict):
        return None
    try:
        return Identity(int(told["size"]), int(told["mtime_ns"]), str(told.get("sha256", "")))
    except (KeyError, TypeError, ValueError):
        return None


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[Any]:
    try:
        file = path.open(mode)
    except FileNotFoundError:
        yield None
        return
    with file:
        yield file


@contextmanager
def _locked(file: Any) -> Iterator[None]:
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


class Claim:
    """The right to work on one output, held by one process at a time through a lock on a file.

    The lock goes with the process, however it ends: nothing is left to clean up.

    Parameters
    ----------
    folder
        Where lock files are kept.
    output
        The output's path below the output folder.
    """

    def __init__(self, folder: Path, output: str) -> None:
        self.path = folder / f"{hashlib.sha256(os.fsencode(output)).hexdigest()[:24]}.lock"
        self._file: Any = None

    def take(self) -> bool:
        """Take it, unless another process has it.

        Raises
        ------
        WriteError
            The folder cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                file = self.path.open("ab")
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.close()
                    return False
                # Its last holder may have removed the file between the two steps: then the lock is on nothing.
                try:
                    if os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):
                        self._file = file
                        return True
                except FileNotFoundError:
                    pass
                file.close()
        except OSError as error:
            raise WriteError(f"{self.path.parent}: cannot be written ({error.strerror or error})") from error

    def release(self) -> None:
        """Give it back."""
        if self._file is not None:
            os.unlink(self.path)
            self._file.close()
            self._file = None

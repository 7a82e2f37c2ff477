"""Damage in an HDF5 file that the library never comes back from: objects of a global heap that are of no size.

It goes from object to object of a collection by their sizes, and does not ask whether a size takes it on ("HDF5 File
Format Specification", version 3, III.E).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import ReadError
from .sniff import superblock

_COLLECTION = b"GCOL\x01\0\0\0"
#: Of a large file, bytes at its start and its end that are looked through: as much as half a second reads.
_START, _END = 256 << 20, 64 << 20


def check(name: str) -> None:
    """Look at the heaps of a file before the library does.

    Raises
    ------
    ReadError
        An object leads back to itself or before itself.
    """
    size = os.path.getsize(name)
    if not size:
        return
    with open(name, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        length = _bytes_of_length(file)
        for start in _collections(content, size):
            if not _ends(content, start, length):
                raise ReadError(f"{name}: damaged (a heap at byte {start} has no end); fetch it again")


def _bytes_of_length(file: BinaryIO) -> int:
    """How many bytes a length takes, as the superblock says."""
    start = superblock(file) or 0
    file.seek(start + 8)
    head = file.read(7)
    said = head[2 if head[0] >= 2 else 6] if len(head) == 7 else 8
    return said if said in (2, 4, 8) else 8


def _collections(content: mmap.mmap, size: int) -> Iterator[int]:
    for first, last in ((0, min(_START, size)), (max(_START, size - _END), size)):
        at = content.find(_COLLECTION, first, last)
        while at >= 0:
            yield at
            at = content.find(_COLLECTION, at + 1, last)


def _ends(content: mmap.mmap, start: int, length: int) -> bool:
    """Whether the objects of a collection lead out of it."""

    def number(at: int, count: int) -> int:
        return int.from_bytes(content[at : at + count], "little")

    head = -(-(8 + length) // 8) * 8  # of a collection, and of an object
    stop = min(start + number(start + 8, length), len(content))
    at = start + head
    while at + head <= stop:
        size = number(at + 8, length)
        # Object 0 is the free space, whose size counts its head. Sizes wrap around as the library's do.
        step = size if number(at, 2) == 0 else (head + -(-size // 8) * 8) % 2**64
        if not 0 < step < 2**63:
            return False
        at += step
    return True

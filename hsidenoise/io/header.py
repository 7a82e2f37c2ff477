"""The text of an ENVI header: tolerant reading, and writing that leaves alone what did not change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ReadError

_LIMIT = 64 * 2**20


@dataclass(frozen=True)
class Entry:
    """One ``key = value``, a comment or a blank line (then `key` is empty); `text` is as in the file."""

    key: str
    value: str
    text: str


@dataclass(frozen=True)
class Header:
    """All entries in file order and the encoding they were read with."""

    entries: tuple[Entry, ...]
    encoding: str = "utf-8"

    def keys(self) -> dict[str, str]:
        """Values by key: lower case, words separated by one blank; the last of duplicates wins, as in GDAL and ENVI."""
        return {e.key: e.value for e in self.entries if e.key}

    def tags(self) -> dict[str, str]:
        """The same as GDAL names them in its ``ENVI`` domain: blanks become underscores, case stays."""
        return {"_".join(e.text.partition("=")[0].split()): e.value for e in self.entries if e.key}


def is_header(start: bytes) -> bool:
    """Whether a file that begins with these bytes is an ENVI header; a BOM or blank lines may come first."""
    return start.removeprefix(b"\xef\xbb\xbf").lstrip()[:5].rstrip() == b"ENVI"


def read(path: str) -> Header:
    """Read and parse a header file.

    Raises
    ------
    ReadError
        Unreadable, not an ENVI header, or a brace is never closed.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT)
    except OSError as error:
        raise ReadError(f"{path}: cannot read the header ({error.strerror})") from error
    return parse(data, path)


def parse(data: bytes, name: str) -> Header:
    """Parse header bytes: any line ends, NUL padding, byte-order mark, comments, UTF-8, GB 2312 or Latin-1 text."""
    if not is_header(data[:4096]):
        raise ReadError(f"{name}: not an ENVI header, the first line is not ENVI")
    text, encoding = _decode(data.removeprefix(b"\xef\xbb\xbf").replace(b"\0", b""))
    lines = text.replace("\r\n", "\n").replace("\r", "\n").lstrip().rstrip("\n ").split("\n")[1:]
    entries: list[Entry] = []
    at = 0
    while at < len(lines):
        first = at
        at += 1
        key, sign, value = lines[first].partition("=")
        if not sign or key.lstrip().startswith(";"):
            entries.append(Entry("", "", lines[first]))
            continue
        value = value.strip()
        if value.startswith("{"):
            parts = [value]
            while "}" not in parts[-1]:
                if at == len(lines):
                    raise ReadError(f"{name}: the brace after '{key.strip()}' is never closed; the header is cut short")
                parts.append(lines[at])
                at += 1
            value = "\n".join(parts).partition("}")[0] + "}"
        name_ = " ".join(key.replace("_", " ").lower().split())
        entries.append(Entry(name_, value, "\n".join(lines[first:at])))
    return Header(tuple(entries), encoding)


def _decode(data: bytes) -> tuple[str, str]:
    # Latin-1 decodes anything, so it comes last; GB 2312 proper (unlike GBK) rarely accepts Western text by chance.
    for encoding in ("utf-8", "gb2312"):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1"), "latin-1"


def update(header: Header, changes: Mapping[str, str | None]) -> bytes:
    """The header's bytes with some keys set, added or (``None``) removed; every other line as it was read."""
    last = {e.key: i for i, e in enumerate(header.entries) if e.key}
    values = header.keys()
    lines = ["ENVI"]
    for i, entry in enumerate(header.entries):
        if entry.key not in changes or changes[entry.key] == values[entry.key]:
            lines.append(entry.text)
        elif changes[entry.key] is not None and i == last[entry.key]:
            lines.append(f"{entry.text.partition('=')[0].rstrip()} = {changes[entry.key]}")
    lines += [f"{key} = {value}" for key, value in changes.items() if value is not None and key not in last]
    text = "\n".join(lines) + "\n"
    try:
        return text.encode(header.encoding)
    except UnicodeEncodeError:
        return text.encode("utf-8")

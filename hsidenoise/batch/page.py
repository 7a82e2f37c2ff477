"""The page of a batch: every scene in a line with small pictures, what needs a look first."""

from __future__ import annotations

import hashlib
import heapq
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import WriteError
from .scenes import PAGE

#: Scenes shown; of more, those that need a look least are left to the manifest: browsers cannot cope.
MOST = 2000
_THUMBNAILS = "thumbnails"

Record = Mapping[str, Any]


def thumbnail(books: Path, output: str) -> Path:
    """Where the picture of an output is kept."""
    return books / _THUMBNAILS / f"{hashlib.sha256(os.fsencode(output)).hexdigest()[:24]}.jpg"


def write(folder: Path, books: Path, records: Iterable[Record]) -> Path:
    """Write the page of the scenes in a manifest, worst first.

    Parameters
    ----------
    folder
        The output folder; the page goes there.
    books
        Where thumbnails are.
    records
        The last of each output.

    Raises
    ------
    WriteError
        The disk is full or gone; an earlier page stays as it was.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = resources.files("hsidenoise").joinpath("templates/batch.html.j2").read_text(encoding="utf-8")
    counts: Counter[str] = Counter()
    shown = heapq.nlargest(MOST, _counted(records, counts), key=_need)
    rows = [_row(record, folder, books) for record in shown]
    html = environment.from_string(text).render(rows=rows, counts=counts, folder=folder.name or str(folder))
    path = folder / PAGE
    part = folder / f".{PAGE}.{os.getpid()}.part"
    try:
        part.write_text(html, encoding="utf-8", errors="surrogateescape")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def _counted(records: Iterable[Record], counts: Counter[str]) -> Iterator[Record]:
    """The records, each counted by its status on the way."""
    for record in records:
        counts[record["status"]] += 1
        yield record


def _need(record: Record) -> tuple[bool, bool, int, float, float, float]:
    """How much a scene needs a look: failed, gate met, verdict, structure removed, not converged, noisy."""
    snr = _summary(record).get("median_snr_before")
    return (
        record["status"] == "failed", bool(record.get("gates_met")), ("good", "check", "fault").index(_level(record)),
        _structure(record) or 0.0, _unconverged(record) or 0.0, -(snr or 0.0),
    )  # fmt: skip


def _level(record: Record) -> str:
    """Of the verdict; what was not measured is taken for good."""
    level = ((record.get("measured") or {}).get("verdict") or {}).get("level")
    return level if level in ("check", "fault") else "good"


def _said(record: Record) -> str:
    """The verdict, or the error without the name, which stands beside it."""
    error = str(record.get("error") or "")
    name, _, rest = error.partition(": ")
    if rest and os.path.basename(name) == os.path.basename(str(record.get("source"))):
        return rest
    return error or ((record.get("measured") or {}).get("verdict") or {}).get("text") or ""


def _summary(record: Record) -> Record:
    return (record.get("measured") or {}).get("summary") or {}


def _structure(record: Record) -> float | None:
    """Share of the denoised bands that lost image structure."""
    summary, denoised = _summary(record), record.get("denoised") or 0
    return (summary.get("structure_found") or 0) / denoised if denoised and summary else None


def _unconverged(record: Record) -> float | None:
    return record["unconverged"] / record["tiles"] if record.get("tiles") else None


def _row(record: Record, folder: Path, books: Path) -> dict[str, Any]:
    measured = record.get("measured") or {}
    summary = _summary(record)
    verdict = measured.get("verdict") or {}
    snr, snr_after = summary.get("median_snr_before"), summary.get("median_snr_after_fine")
    failed = record["status"] == "failed"
    picture = thumbnail(books, record["output"])
    report = folder / (record["output"] + ".html")
    return {
        "output": record["output"],
        "status": record["status"],
        "link": _link(report.relative_to(folder)) if report.is_file() else "",
        "picture": _link(picture.relative_to(folder)) if not failed and picture.is_file() else "",
        "said": _said(record),
        "reasons": " ".join(verdict.get("reasons") or ()),
        "level": "failed" if failed else verdict.get("level", ""),
        "gates": ", ".join(record.get("gates_met") or ()),
        "structure": _structure(record),
        "unconverged": _unconverged(record),
        "snr": snr,
        "snr_after": snr_after if snr is not None and snr_after is not None and snr_after > snr else None,
        "sam": measured.get("sam_to_input"),
        "seconds": record.get("elapsed"),
        "warnings": len(record.get("warnings") or ()),
    }


def _link(path: Path) -> str:
    return quote(path.as_posix(), errors="surrogateescape")

"""The page of a batch: every scene in a line with small pictures, what needs a look first."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import WriteError

NAME = "batch-report.html"
_THUMBNAILS = "thumbnails"

Record = Mapping[str, Any]


def thumbnail(books: Path, output: str) -> Path:
    """Where the picture of an output is kept."""
    return books / _THUMBNAILS / f"{hashlib.sha256(os.fsencode(output)).hexdigest()[:24]}.jpg"


def write(folder: Path, books: Path, latest: Mapping[str, Record]) -> Path:
    """Write the page of all scenes in a manifest.

    Parameters
    ----------
    folder
        The output folder; the page goes there.
    books
        Where thumbnails are.
    latest
        The last record of each output.

    Raises
    ------
    WriteError
        The disk is full or gone; an earlier page stays as it was.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = resources.files("hsidenoise").joinpath("templates/batch.html.j2").read_text(encoding="utf-8")
    rows = sorted((_row(record, folder, books) for record in latest.values()), key=lambda r: r["worst"], reverse=True)
    counts = {status: sum(r["status"] == status for r in rows) for status in ("done", "failed", "started")}
    html = environment.from_string(text).render(rows=rows, counts=counts, folder=folder.name or str(folder))
    path = folder / NAME
    part = folder / f".{NAME}.{os.getpid()}.part"
    try:
        part.write_text(html, encoding="utf-8", errors="surrogateescape")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def _row(record: Record, folder: Path, books: Path) -> dict[str, Any]:
    measured = record.get("measured") or {}
    summary = measured.get("summary") or {}
    verdict = measured.get("verdict") or {}
    denoised = record.get("denoised") or 0
    structure = (summary.get("structure_found") or 0) / denoised if denoised and summary else None
    unconverged = record["unconverged"] / record["tiles"] if record.get("tiles") else None
    snr, snr_after = summary.get("median_snr_before"), summary.get("median_snr_after_fine")
    failed = record["status"] == "failed"
    picture = thumbnail(books, record["output"])
    report = folder / (record["output"] + ".html")
    return {
        "output": record["output"],
        "status": record["status"],
        "link": _link(report.relative_to(folder)) if report.is_file() else "",
        "picture": _link(picture.relative_to(folder)) if not failed and picture.is_file() else "",
        "said": record.get("error") or verdict.get("text") or "",
        "level": "fault" if failed else verdict.get("level", ""),
        "gates": ", ".join(record.get("gates_met") or ()),
        "structure": structure,
        "unconverged": unconverged,
        "snr": snr,
        "snr_after": snr_after if snr is not None and snr_after is not None and snr_after > snr else None,
        "sam": measured.get("sam_to_input"),
        "seconds": record.get("elapsed"),
        "warnings": len(record.get("warnings") or ()),
        "worst": (failed, bool(record.get("gates_met")), structure or 0.0, unconverged or 0.0, -(snr or 0.0)),
    }


def _link(path: Path) -> str:
    return quote(path.as_posix(), errors="surrogateescape")

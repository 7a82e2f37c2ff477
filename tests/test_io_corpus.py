"""Good files from outside the project and look-alikes of products: what comes back is the same file.

Each is opened, copied in its own format with the pixels unchanged, compared by independent readers, and denoised if it
is small. Damaged files are in test_bad_scenes.py. The tables of what cannot be read are in corpus.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from corpus import FILES, FOLDERS, NO_RASTER, OPTIONS, REFUSED, UNSUPPORTED, scenes

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.skipif(not FILES.is_dir(), reason="the folder of sample files is not beside the project"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]
ALL = scenes() if FILES.is_dir() else []
MEGABYTES = 1000


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every file; what came of it by name. Two processes share the work."""
    before = listing()
    started = []
    for part in range(2):
        scratch = tmp_path_factory.mktemp("corpus")
        process = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "corpus_check.py", scratch],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(ALL[part::2]))
        process.stdin.close()
        process.stdin = None
        started.append(process)
    results: dict[str, dict[str, Any]] = {}
    for process in started:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        results |= json.loads(out)
    assert listing() == before
    return results


def listing() -> list[tuple[str, int, int]]:
    paths = [p for top in ("good", "synth") for p in (FILES / top).rglob("*")]
    return sorted((str(p), p.lstat().st_size, p.lstat().st_mtime_ns) for p in paths)


@pytest.mark.parametrize("name", ALL)
def test_what_comes_back_is_the_same_file(name: str, found: dict[str, dict[str, Any]]) -> None:
    result = found[name]
    assert "failed" not in result, result["failed"]
    assert result["megabytes"] < MEGABYTES
    assert result["said"] == ""
    if name in UNSUPPORTED or name in REFUSED or name in NO_RASTER:
        assert "refused" in result, "take it out of the table"
        assert "\n" not in result["refused"]
    else:
        assert result.get("copied") in ("same", "too large"), result
        assert result.get("denoised", "done") == "done" or result["denoised"].startswith("refused"), result


def test_tables_name_files_that_are_there() -> None:
    assert {*UNSUPPORTED, *REFUSED, *NO_RASTER, *OPTIONS} <= {*ALL}
    assert not {*UNSUPPORTED} & {*REFUSED} | {*UNSUPPORTED, *REFUSED} & {*NO_RASTER}


def test_nearly_all_files_that_hold_a_raster_are_read() -> None:
    rasters = [name for name in ALL if name not in NO_RASTER and name not in FOLDERS]
    assert len(UNSUPPORTED) <= 0.05 * len(rasters)


def test_the_documentation_lists_the_same() -> None:
    text = (ROOT / "docs" / "formats.md").read_text()
    part = text.partition("## What cannot be read")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("| ")][1:]
    listed = {name.strip(" `"): row[0].strip() for row in rows for name in row[1].split(",")}
    assert listed == {name.removeprefix("good/"): why for name, why in {**UNSUPPORTED, **REFUSED}.items()}

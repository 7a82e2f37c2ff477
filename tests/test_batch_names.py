"""Names of files are hostile until proven otherwise: none leads out of the output folder, into a page or a shell."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from scenes import write_tiff

from hsidenoise.batch import batch
from hsidenoise.batch.scenes import find
from hsidenoise.errors import UsageError
from hsidenoise.settings import BatchOptions


def scene(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_tiff(path, tiny.cube(8, 16, 20).astype(np.float32))


def test_names_that_are_commands_markup_or_gibberish_stay_names(tmp_path: Path, weights: str) -> None:
    top, out = tmp_path / "in", tmp_path / "out"
    names = [
        "-rf.tif", "a..b.tif", "x..tif", "$(touch owned)`touch owned`;touch owned.tif", "%2e%2e%2fup.tif", "~.tif",
        "'\".tif", "<script>alert(1).tif", "esc\x1b[31mape.tif", "line\nbreak.tif", "日本\u202e.tif", "*?[x].tif",
    ]  # fmt: skip
    first = scene(tmp_path / "first.tif")
    top.mkdir()
    for name in names:
        (top / name).write_bytes(first.read_bytes())
    (top / "<script>broken.tif").write_bytes(b"II*\0")
    command = [sys.executable, "-m", "hsidenoise", "batch", str(top), "-d", str(out), "--model", weights, "--json"]
    done = subprocess.run([*command, "--jobs", "1"], capture_output=True, text=True, check=False, cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert (answer["done"], answer["failed"]) == (len(names), 1), done.stderr
    assert {p.name for p in out.glob("*.tif")} == set(names)
    assert {p.name for p in tmp_path.iterdir()} == {"in", "out", "first.tif"}
    assert "\x1b" not in done.stderr  # a terminal would obey
    assert done.stderr.count("\n") == len(names) + 1  # a line each
    page = (out / "batch-report.html").read_text()
    assert page.count("<script>") == 1  # the page's own
    assert page.count("</script>") == 1


def test_names_that_are_not_utf_8_fail_by_name(tmp_path: Path, weights: str) -> None:
    top, out = tmp_path / "in", tmp_path / "out"
    scene(top / "good.tif")
    for suffix in (b".tif", b".mat", b".h5", b".nc", b".img"):
        try:
            Path(os.fsdecode(os.fsencode(top) + b"/caf\xe9" + suffix)).write_bytes(b"II*\0")
        except OSError:
            pytest.skip("this file system has no such names")
    found = batch([str(top)], out, model=weights, jobs=1, quiet=True, reports=True)
    assert (found["done"], found["failed"]) == (1, 5)
    assert all("caf\\xe9" in f["error"] and "not UTF-8" in f["error"] for f in found["failures"])
    assert Path(found["report"]).is_file()
    again = batch([str(top)], out, model=weights, jobs=1, quiet=True, reports=True)
    assert (again["skipped"], again["failed"]) == (1, 5)


def test_links_that_lead_nowhere_fail_by_name_and_linked_folders_are_not_followed(tmp_path: Path, weights: str) -> None:
    top, out = tmp_path / "in", tmp_path / "out"
    scene(tmp_path / "elsewhere" / "far.tif")
    top.mkdir()
    (top / "linked.tif").symlink_to(tmp_path / "elsewhere" / "far.tif")
    (top / "dangling.tif").symlink_to(tmp_path / "nothing.tif")
    (top / "loop.tif").symlink_to(top / "loop.tif")
    (top / "self").symlink_to(top)
    (top / "folder").symlink_to(tmp_path / "elsewhere")
    found = batch([str(top)], out, model=weights, jobs=1, quiet=True)
    assert found["done"] == 1
    errors = sorted(f["error"] for f in found["failures"])
    assert errors == [
        f"{top}/dangling.tif: No such file or directory", f"{top}/loop.tif: Too many levels of symbolic links"
    ]  # fmt: skip
    assert not (out / "linked.tif").is_symlink()


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_is_a_link_is_never_written_through(tmp_path: Path, weights: str, overwrite: bool) -> None:
    source, out = scene(tmp_path / "in" / "a.tif"), tmp_path / "out"
    out.mkdir()
    (tmp_path / "precious.tif").write_bytes(b"precious")
    (out / "a.tif").symlink_to(tmp_path / "precious.tif")
    found = batch([str(source)], out, model=weights, jobs=1, quiet=True, overwrite=overwrite)
    assert found["done"] == overwrite
    assert (tmp_path / "precious.tif").read_bytes() == b"precious"


def test_an_output_that_links_to_its_input_leaves_that_alone(tmp_path: Path, weights: str) -> None:
    source, out = scene(tmp_path / "in" / "a.tif"), tmp_path / "out"
    before = source.read_bytes()
    out.mkdir()
    (out / "a.tif").symlink_to(source)
    batch([str(source)], out, model=weights, jobs=1, quiet=True, overwrite=True)
    assert source.read_bytes() == before


def test_names_with_parent_folders_stay_below_the_output_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work" / "x").mkdir(parents=True)
    (tmp_path / "up.tif").touch()
    monkeypatch.chdir(tmp_path / "work")
    options = BatchOptions()
    assert [s.output for s in find(["../up.tif"], Path("out"), options)] == ["up.tif"]
    assert [s.output for s in find(["../*.tif"], Path("out"), options)] == ["up.tif"]
    assert [s.output for s in find([".."], Path("out"), options)] == ["up.tif"]
    for pattern in ("*/../../up.tif", "x*/../../*.tif"):
        with pytest.raises(UsageError, match="would leave"):
            find([pattern], Path("out"), options)


@pytest.mark.parametrize("name", ["batch-report.html", ".hsidenoise/manifest.jsonl"])
def test_no_output_takes_the_place_of_the_books(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="batch's own"):
        find([name.replace("batch", "[b]atch").replace(".hs", ".[h]s")], Path("out"), BatchOptions())


def test_nothing_is_unpickled_from_a_file_and_no_shell_is_started() -> None:
    package = Path(__file__).parents[1] / "hsidenoise"
    banned = re.compile(
        r"allow_pickle|torch\.load\(|import pickle|pickle\.load|shell=True|os\.system|os\.popen|(?<![.\w])(eval|exec)\("
    )
    for path in package.rglob("*.py"):
        assert not banned.search(path.read_text(encoding="utf-8")), path

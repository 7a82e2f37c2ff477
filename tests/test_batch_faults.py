"""Batches where the machine fails: permissions, full disks, memory. What is there is right; a repeat completes it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
from scenes import write_tiff

#: Root may do everything; without these two capabilities permissions count for it too.
BOUND = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
COUNT = 4

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("archive")
    (top / "sub").mkdir()
    for i in range(COUNT):
        write_tiff(top / ("sub" if i == 3 else "") / f"{i}.tif", tiny.cube(24, 48, 48, seed=i).astype(np.float32))
    return top


@pytest.fixture
def run(weights: str, tmp_path: Path) -> Command:
    """A batch of one process by the command line, where permissions count."""
    bound = []
    if os.geteuid() == 0:
        if not shutil.which("setpriv") or subprocess.run([*BOUND, "true"], check=False, capture_output=True).returncode:
            pytest.skip("root, and no setpriv to be less")
        bound = BOUND

    def command(source: Path, out: Path, *more: str, limit: str = "") -> subprocess.CompletedProcess[str]:
        start = limit + "import sys; from hsidenoise.cli import main; main()"
        return subprocess.run(
            [*bound, sys.executable, "-c", start, "batch", str(source), "-d", str(out), "--model", weights,
             "--jobs", "1", "--quick", "--json", *more],
            capture_output=True, text=True, check=False, env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"},
        )  # fmt: skip

    return command


@pytest.fixture(scope="module")
def whole(archive: Path, tmp_path_factory: pytest.TempPathFactory, weights: str) -> Path:
    """The folder of a batch that nothing disturbed."""
    out = tmp_path_factory.mktemp("undisturbed")
    command = [sys.executable, "-m", "hsidenoise", "batch", str(archive), "-d", str(out), "--model", weights, "-q"]
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run([*command, "--jobs", "1", "--quick"], check=True, env=environment)
    return out


@pytest.fixture(scope="module")
def undisturbed(whole: Path) -> dict[str, str]:
    return sums(whole)


def sums(out: Path) -> dict[str, str]:
    found = sorted(p for p in out.rglob("*.tif") if not p.name.startswith("."))
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def sound(out: Path, undisturbed: dict[str, str]) -> set[str]:
    """What is there is complete, nothing unfinished lies about, and the books can be read; the outputs."""
    there = sums(out)
    assert there == {name: undisturbed[name] for name in there}
    assert not [p for p in out.rglob("*") if ".part" in p.name]
    manifest = out / ".hsidenoise" / "manifest.jsonl"
    latest = {}
    for line in manifest.read_text().splitlines() if manifest.exists() else ():
        record = json.loads(line)
        latest[record["output"]] = record["status"]
    assert {output for output, status in latest.items() if status == "done"} == set(there)
    return set(there)


def completed(run: Command, archive: Path, out: Path, undisturbed: dict[str, str]) -> None:
    """A repeat does exactly what is missing."""
    there = sound(out, undisturbed)
    done = run(archive, out)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["skipped"], answer["done"]) == (len(there), COUNT - len(there))
    assert sums(out) == undisturbed


@pytest.fixture
def copied(archive: Path, tmp_path: Path) -> Iterator[Path]:
    """The archive, its permissions free to be changed."""
    copy = shutil.copytree(archive, tmp_path / "in")
    yield copy
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755)


def test_inputs_that_cannot_be_read_fail_by_name(
    run: Command, copied: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    out = tmp_path / "out"
    (copied / "1.tif").chmod(0)
    (copied / "sub").chmod(0)  # and what it holds cannot even be listed
    done = run(copied, out)
    assert done.returncode == 1
    errors = {Path(f["source"]).name: f["error"] for f in json.loads(done.stdout)["failures"]}
    assert set(errors) == {"1.tif", "sub"}
    assert all(error.endswith("cannot be opened (Permission denied)") for error in errors.values())
    (copied / "1.tif").chmod(0o644)
    (copied / "sub").chmod(0o755)
    assert sound(out, undisturbed) == {"0.tif", "2.tif"}
    completed(run, copied, out, undisturbed)


@pytest.mark.parametrize("what", [".", "sub", ".hsidenoise"])
def test_outputs_that_cannot_be_written_fail_in_a_line(
    run: Command, archive: Path, tmp_path: Path, whole: Path, what: str
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    for name in ("0.tif", "sub/3.tif", "batch-report.html"):
        (out / name).unlink()
    (out / what).chmod(0o555)
    done = run(archive, out)
    (out / what).chmod(0o755)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    if what == ".hsidenoise":
        assert done.stderr.count("\n") == 1
        assert "cannot be written (Permission denied)" in done.stderr
    else:
        assert [Path(f["source"]).name for f in json.loads(done.stdout)["failures"]] == [
            "0.tif" if what == "." else "3.tif"
        ]
    answer = json.loads(run(archive, out).stdout)
    assert answer["failed"] == 0
    assert sound(out, sums(whole)) == set(sums(whole))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of so many kB, empty at first; its size may be changed."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(kilobytes: int) -> Path:
        again = ["-o", f"{'remount,' if disk.is_mount() else ''}size={kilobytes}k"]
        command = ["mount", "-t", "tmpfs", *again, "tmpfs", str(disk)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk is not allowed here")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("kilobytes", [8, 500])  # none, two
def test_a_full_disk_costs_what_does_not_fit(
    run: Command, archive: Path, undisturbed: dict[str, str], small_disk: Callable[[int], Path], kilobytes: int
) -> None:
    out = small_disk(kilobytes)
    (out / ".hsidenoise").mkdir()
    done = run(archive, out)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(sound(out, undisturbed)) == kilobytes // 240
    small_disk(4000)
    completed(run, archive, out, undisturbed)


def test_a_disk_without_room_for_the_books_ends_the_batch(
    run: Command, archive: Path, undisturbed: dict[str, str], small_disk: Callable[[int], Path]
) -> None:
    out = small_disk(8)
    (out / ".hsidenoise").mkdir()
    (out / "other").write_bytes(bytes(8000))
    done = run(archive, out)
    assert done.returncode == 1
    assert "manifest.jsonl: cannot be written (No space left on device)" in done.stderr
    assert "Traceback" not in done.stderr
    (out / "other").unlink()
    small_disk(4000)
    completed(run, archive, out, undisturbed)


def test_a_scene_without_memory_is_named_and_takes_nobody_with_it(
    run: Command, archive: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    top = shutil.copytree(archive, tmp_path / "in")
    write_tiff(top / "large.tif", tiny.cube(64, 900, 900).astype(np.float32))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (550 << 20, resource.RLIM_INFINITY));"
    done = run(top, tmp_path / "out", limit=limit)
    print(done.stdout, done.stderr)
    assert done.returncode == 1
    (failure,) = json.loads(done.stdout)["failures"]
    assert failure["source"].endswith("large.tif")
    assert "memory" in failure["error"]
    assert sound(tmp_path / "out", undisturbed) == set(undisturbed)

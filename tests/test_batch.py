"""Batches: what is done is not done again, failures stay alone, no crash costs more than the scenes in work."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import tiny
from scenes import quiet, write_tiff

from hsidenoise.batch import batch, page, process
from hsidenoise.batch.manifest import Claim, Manifest
from hsidenoise.batch.scenes import find
from hsidenoise.errors import UsageError
from hsidenoise.settings import BatchOptions


def scene(path: Path, seed: int = 0, bands: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_tiff(path, tiny.cube(bands, 20, 24, seed=seed).astype(np.float32))


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / ".hsidenoise" / "manifest.jsonl").read_text().splitlines()]


def sums(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and ".hsidenoise" not in p.parts and p.name != "batch-report.html"
    }


@pytest.fixture(autouse=True)
def same_bytes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


# Which scenes, and where to.


def outputs(names: list[str], folder: Path, **options: Any) -> dict[str, str]:
    return {s.output: s.source for s in find(names, folder, BatchOptions(**options))}


def test_folders_are_mirrored_and_sidecars_are_no_scenes(tmp_path: Path) -> None:
    top = tmp_path / "in"
    for name in ("a.tif", "sub/b.img", "sub/b.hdr", "sub/c", "sub/c.hdr", "a.tif.aux.xml", "notes.txt", ".hidden.tif"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"x")
    assert set(outputs([str(top)], tmp_path / "out")) == {"a.tif", "sub/b.img", "sub/c"}
    assert set(outputs([str(top)], tmp_path / "out", suffix="_dn")) == {"a_dn.tif", "sub/b_dn.img", "sub/c_dn"}
    assert set(outputs([str(top)], tmp_path / "out", of="COG")) == {"a.tif", "sub/b.tif", "sub/c.tif"}


def test_a_header_without_its_data_is_a_scene_that_will_fail(tmp_path: Path) -> None:
    (tmp_path / "lost.hdr").write_text("ENVI\n")
    assert set(outputs([str(tmp_path)], tmp_path / "out")) == {"lost.img"}


def test_patterns_mirror_what_is_below_their_first_wildcard(tmp_path: Path) -> None:
    for name in ("2020/x/a.tif", "2021/y/a.tif"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert set(outputs([f"{tmp_path}/20*/**/*.tif"], tmp_path / "out")) == {"2020/x/a.tif", "2021/y/a.tif"}
    with pytest.raises(UsageError, match="matches nothing"):
        outputs([f"{tmp_path}/19*/*.tif"], tmp_path / "out")


def test_outputs_below_an_input_folder_are_not_taken_for_scenes(tmp_path: Path) -> None:
    for name in ("a.tif", "out/a.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert set(outputs([str(tmp_path)], tmp_path / "out")) == {"a.tif"}


def test_two_scenes_of_one_output_are_refused_and_one_named_twice_is_not(tmp_path: Path) -> None:
    for name in ("x/a.tif", "y/a.tif"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    one, two = str(tmp_path / "x/a.tif"), str(tmp_path / "y/a.tif")
    with pytest.raises(UsageError, match="both be written"):
        outputs([one, two], tmp_path / "out")
    assert outputs([one, one], tmp_path / "out") == {"a.tif": one}


def test_shards_divide_the_scenes(tmp_path: Path) -> None:
    for i in range(40):
        (tmp_path / f"{i}.tif").touch()
    parts = [set(outputs([str(tmp_path)], tmp_path / "out", shard=f"{k}/3")) for k in (1, 2, 3)]
    assert sum(map(len, parts)) == 40
    assert set.union(*parts) == set(outputs([str(tmp_path)], tmp_path / "out"))
    assert min(map(len, parts)) > 4
    for text in ("0/3", "4/3", "1", "a/b", "1/0"):
        with pytest.raises(UsageError, match="--shard"):
            outputs([str(tmp_path)], tmp_path / "out", shard=text)


def test_shards_are_even_however_alike_names_are(tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / f"s{i}.tif").touch()
    parts = [outputs([str(tmp_path)], tmp_path / "out", shard=f"{k}/2") for k in (1, 2)]
    assert min(map(len, parts)) > 1


# Doing it.


def test_what_is_done_is_skipped_and_what_changed_is_redone(tmp_path: Path, weights: str) -> None:
    top, out = tmp_path / "in", tmp_path / "out"
    for i in range(3):
        scene(top / f"{i}.tif", seed=i)
    given = {"model": weights, "jobs": 1, "quiet": True}
    first = batch([str(top)], out, **given)
    assert (first["done"], first["skipped"], first["failed"]) == (3, 0, 0)
    before = sums(out)
    with quiet(), rasterio.open(out / "1.tif") as result:
        assert result.shape == (20, 24)
    again = batch([str(top)], out, **given)
    assert (again["done"], again["skipped"]) == (0, 3)
    assert sums(out) == before
    scene(top / "1.tif", seed=9)  # another input
    (out / "2.tif").unlink()  # a missing output
    third = batch([str(top)], out, **given)
    assert (third["done"], third["skipped"], third["failed"]) == (2, 1, 0)
    assert sums(out)["2.tif"] == before["2.tif"]
    assert sums(out)["1.tif"] != before["1.tif"]
    fourth = batch([str(top)], out, dtype="float64", **given)  # other options
    assert (fourth["done"], fourth["skipped"]) == (3, 0)


def test_failures_stay_alone_and_are_named(tmp_path: Path, weights: str) -> None:
    top, out = tmp_path / "in", tmp_path / "out"
    scene(top / "good.tif")
    scene(top / "sub" / "short.tif")
    data = (top / "sub" / "short.tif").read_bytes()
    (top / "sub" / "short.tif").write_bytes(data[: len(data) // 2])
    (top / "page.tif").write_text("<!DOCTYPE html><html></html>")
    found = batch([str(top)], out, model=weights, jobs=2, quiet=True)
    assert (found["done"], found["failed"]) == (1, 2)
    assert {Path(f["source"]).name for f in found["failures"]} == {"short.tif", "page.tif"}
    assert list(sums(out)) == ["good.tif"]
    assert {r["output"]: r["status"] for r in records(out)} == {
        "good.tif": "done", "page.tif": "failed", "sub/short.tif": "failed"
    }  # fmt: skip


def test_a_file_of_somebody_else_is_not_replaced(tmp_path: Path, weights: str) -> None:
    source, out = scene(tmp_path / "in" / "a.tif"), tmp_path / "out"
    out.mkdir()
    (out / "a.tif").write_bytes(b"precious")
    found = batch([str(source)], out, model=weights, jobs=1, quiet=True)
    assert found["failed"] == 1
    assert "--overwrite" in found["failures"][0]["error"]
    assert (out / "a.tif").read_bytes() == b"precious"
    # A crash must not turn it into the batch's own: its start was never recorded.
    assert [r["status"] for r in records(out)] == ["failed"]
    assert batch([str(source)], out, model=weights, jobs=1, quiet=True)["failed"] == 1
    assert (out / "a.tif").read_bytes() == b"precious"
    assert batch([str(source)], out, model=weights, jobs=1, quiet=True, overwrite=True)["done"] == 1


def test_an_output_stays_the_batch_own_when_its_scene_is_broken_and_mended(tmp_path: Path, weights: str) -> None:
    source, out = scene(tmp_path / "in" / "a.tif"), tmp_path / "out"
    given = {"model": weights, "jobs": 1, "quiet": True}
    good = source.read_bytes()
    assert batch([str(source)], out, **given)["done"] == 1
    source.write_bytes(good[:100])
    assert [batch([str(source)], out, **given)["failed"] for _ in range(2)] == [1, 1]
    source.write_bytes(good)
    assert batch([str(source)], out, **given)["done"] == 1
    (out / "a.tif").write_bytes(b"somebody's")
    assert batch([str(source)], out, **given)["failed"] == 1
    assert (out / "a.tif").read_bytes() == b"somebody's"


@pytest.mark.parametrize("name", ["with space.tif", "ünïcödé.tif", "-dash.tif", "quote'\".tif", "new\nline.tif"])
def test_strange_names(tmp_path: Path, weights: str, name: str) -> None:
    scene(tmp_path / "in" / name)
    found = batch([str(tmp_path / "in")], tmp_path / "out", model=weights, jobs=1, quiet=True)
    assert found["done"] == 1, found
    assert (tmp_path / "out" / name).is_file()


def test_links_do_not_lead_out_of_the_output_folder(tmp_path: Path, weights: str) -> None:
    scene(tmp_path / "in" / "sub" / "a.tif")
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    found = batch([str(tmp_path / "in")], tmp_path / "out", model=weights, jobs=1, quiet=True)
    assert found["failed"] == 1
    assert not list((tmp_path / "elsewhere").iterdir())


def test_gates_are_met_or_not(tmp_path: Path, weights: str) -> None:
    source = scene(tmp_path / "in" / "a.tif")
    given = {"model": weights, "jobs": 1, "quiet": True}
    assert not batch([str(source)], tmp_path / "one", fail_on=("sam>80deg",), **given)["gates_met"]
    found = batch([str(source)], tmp_path / "two", fail_on=("sam>=0",), **given)
    assert [met["gate"] for met in found["gates_met"]] == ["sam>=0"]
    with pytest.raises(UsageError, match="--fail-on"):
        batch([str(source)], tmp_path / "three", fail_on=("beauty<1",), **given)


def test_a_dry_run_writes_nothing(tmp_path: Path, weights: str) -> None:
    scene(tmp_path / "in" / "a.tif")
    found = batch([str(tmp_path / "in")], tmp_path / "out", model=weights, dry_run=True)
    assert (found["scenes"], found["todo"]) == (1, 1)
    assert found["input_bytes"] > 0
    assert 1 < found["seconds"] < 10  # starting up, above all
    assert 2e8 < found["memory_bytes"] < 8e8
    assert not (tmp_path / "out").exists()


def test_the_page_shows_every_scene_and_escapes_its_name(tmp_path: Path, weights: str) -> None:
    scene(tmp_path / "in" / "<b>&.tif")
    (tmp_path / "in" / "broken.tif").write_bytes(b"II*\0broken")
    found = batch([str(tmp_path / "in")], tmp_path / "out", model=weights, jobs=1, quiet=True, reports=True)
    text = Path(found["report"]).read_text()
    assert "<b>&.tif" not in text
    assert "&lt;b&gt;&amp;.tif" in text
    assert "%3Cb%3E%26.tif.html" in text  # its own report
    assert (tmp_path / "out" / "<b>&.tif.html").is_file()
    assert text.index("broken.tif") < text.index("&lt;b&gt;")  # what failed comes first
    (picture,) = (tmp_path / "out" / ".hsidenoise" / "thumbnails").iterdir()
    assert picture.read_bytes()[:3] == b"\xff\xd8\xff"
    assert picture.name in text


def test_the_page_puts_first_what_needs_a_look_and_stays_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def done(name: str, level: str, hit: int, snr: float) -> dict[str, Any]:
        summary = {"structure_found": hit, "median_snr_before": snr}
        measured = {"summary": summary, "verdict": {"level": level, "text": "So.", "reasons": ["Why."]}}
        return {"output": name, "status": "done", "denoised": 10, "measured": measured, "unconverged": 0, "tiles": 1}

    given = [
        done("fine", "good", 0, 40), done("noisy", "good", 0, 5), done("doubtful", "check", 1, 40),
        {"output": "broken.tif", "source": "/x/broken.tif", "status": "failed", "error": "in/broken.tif: is empty"},
        done("worse", "check", 5, 40), done("wrong", "fault", 0, 40), done("plain", "good", 0, 20),
    ]  # fmt: skip
    text = page.write(tmp_path, tmp_path, given).read_text()
    order = ["broken.tif", "wrong", "worse", "doubtful", "noisy", "plain", "fine"]
    places = [text.index(f'<td class="name">{name}</td>') for name in order]
    assert places == sorted(places)
    assert "<div>is empty</div>" in text  # its name stands beside it
    monkeypatch.setattr(page, "MOST", 3)
    text = page.write(tmp_path, tmp_path, given).read_text()
    assert "6 denoised, 1 failed" in text
    assert "Shown are the 3 that need it most" in text
    assert "doubtful" not in text


def test_a_quick_batch_measures_nothing(tmp_path: Path, weights: str) -> None:
    source = scene(tmp_path / "in" / "a.tif")
    assert batch([str(source)], tmp_path / "out", model=weights, jobs=1, quiet=True, quick=True)["done"] == 1
    assert "measured" not in records(tmp_path / "out")[-1]
    assert not (tmp_path / "out" / ".hsidenoise" / "thumbnails").exists()


def times(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in (folder, *folder.rglob("*"))}


def test_repeating_a_batch_that_is_done_touches_nothing_and_loads_nothing(tmp_path: Path, weights: str) -> None:
    scene(tmp_path / "in" / "a.tif")
    assert batch([str(tmp_path / "in")], tmp_path / "out", model=weights, jobs=1, quiet=True)["done"] == 1
    before = times(tmp_path / "out")
    script = (
        "import sys; from hsidenoise.batch import batch;"
        "found = batch([sys.argv[1]], sys.argv[2], model=sys.argv[3], jobs=1, quiet=True);"
        "print(found['skipped'], [m for m in ('torch', 'rasterio', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "in"), str(tmp_path / "out"), weights]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1 []\n"
    assert times(tmp_path / "out") == before
    (tmp_path / "out" / "batch-report.html").unlink()
    assert Path(batch([str(tmp_path / "in")], tmp_path / "out", model=weights, quiet=True)["report"]).is_file()


def test_a_file_that_is_no_scene_is_named_before_torch_is_loaded(tmp_path: Path, weights: str) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    script = (
        "import sys; from pathlib import Path;"
        "from hsidenoise.batch.workers import Task, attempt; from hsidenoise.settings import RunOptions;"
        "task = Task(sys.argv[1], sys.argv[2], RunOptions(model=sys.argv[3]), Path(sys.argv[4]));"
        "print(attempt(task)[0], [m for m in ('torch', 'matplotlib') if m in sys.modules])"
    )
    names = [str(tmp_path / name) for name in ("a.tif", "b.tif")]
    command = [sys.executable, "-c", script, *names, weights, str(tmp_path / "c.jpg")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "failed []\n"


def test_a_script_without_a_main_guard_may_call_it(tmp_path: Path, weights: str) -> None:
    scene(tmp_path / "in" / "a.tif")
    text = f"from hsidenoise.batch import batch\nprint(batch(['in'], 'out', model={weights!r}, quiet=True)['done'])\n"
    (tmp_path / "script.py").write_text(text)
    command = [sys.executable, "script.py"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_processes_share_the_gpus_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Told(Exception):
        pass

    def popen(*_: Any, env: dict[str, str], **__: Any) -> None:
        seen.append(env["CUDA_VISIBLE_DEVICES"])
        raise Told

    monkeypatch.setattr(subprocess, "Popen", popen)
    for visible, gpu in (("", 1), ("5,7", 0), ("5,7", 1)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with pytest.raises(Told):
            process.start(1, gpu)
    assert seen == ["1", "5", "7"]


# The books.


def test_broken_lines_of_the_manifest_are_skipped(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "m.jsonl")
    manifest.add({"output": "a", "status": "done"})
    with (tmp_path / "m.jsonl").open("ab") as file:
        file.write(b'{"output": "b", "sta')  # a crash
    manifest.add({"output": "c", "status": "done"})
    assert set(Manifest(tmp_path / "m.jsonl").latest()) == {"a", "c"}


def test_a_claim_is_one_process_own(tmp_path: Path) -> None:
    claim = Claim(tmp_path, "a.tif")
    assert claim.take()
    script = (
        "import sys; from pathlib import Path; from hsidenoise.batch.manifest import Claim;"
        "print(Claim(Path(sys.argv[1]), 'a.tif').take())"
    )
    said = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True).stdout
    assert said == "False\n"
    claim.release()
    said = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True).stdout
    assert said == "True\n"


# Faults.


# As many jobs each time: results are the same to the bit for the same number of threads.


def start(top: Path, out: Path, weights: str, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hsidenoise", "batch", str(top), "-d", str(out), "--model", weights, *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            command = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and b"hsidenoise.batch.process" in command:
            found.append(int(path.parent.name))
    return found


def started(out: Path) -> bool:
    manifest = out / ".hsidenoise" / "manifest.jsonl"
    return manifest.exists() and "started" in manifest.read_text()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("archive")
    for i in range(4):
        write_tiff(top / f"{i}.tif", tiny.cube(24, 160, 160, seed=i).astype(np.float32))
    return top


@pytest.fixture(scope="module")
def undisturbed(archive: Path, tmp_path_factory: pytest.TempPathFactory, weights: str) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        assert batch([str(archive)], out, model=weights, jobs=2, quiet=True)["done"] == 4
    return sums(out)


def complete(archive: Path, out: Path, weights: str, undisturbed: dict[str, str]) -> None:
    """A second batch does what is missing, and no more; everything is as if nothing had happened."""
    there = {name for name in sums(out) if not Path(name).name.startswith(".")}
    assert {name: sums(out)[name] for name in there} == {name: undisturbed[name] for name in there}
    done = {r["output"] for r in records(out) if r["status"] == "done"}
    found = batch([str(archive)], out, model=weights, jobs=2, quiet=True)
    assert found["failed"] == 0, found["failures"]
    assert found["skipped"] == len(done)
    assert sums(out) == undisturbed


def test_a_killed_worker_takes_nobody_with_it(
    archive: Path, tmp_path: Path, weights: str, undisturbed: dict[str, str]
) -> None:
    client = start(archive, tmp_path, weights, "--jobs", "2")
    until(lambda: started(tmp_path) and children(client.pid))
    os.kill(children(client.pid)[0], signal.SIGKILL)
    said = client.communicate(timeout=120)[1]
    assert client.returncode == 0, said
    assert sums(tmp_path) == undisturbed


def test_a_killed_client_loses_only_what_was_in_work(
    archive: Path, tmp_path: Path, weights: str, undisturbed: dict[str, str]
) -> None:
    client = start(archive, tmp_path, weights, "--jobs", "2")
    until(lambda: any(tmp_path.glob("*.tif")))
    workers = children(client.pid)
    client.kill()
    client.communicate(timeout=60)
    until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers))
    complete(archive, tmp_path, weights, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_complete_files_and_130(
    archive: Path, tmp_path: Path, weights: str, undisturbed: dict[str, str], number: signal.Signals
) -> None:
    client = start(archive, tmp_path, weights, "--jobs", "2")
    until(lambda: any(tmp_path.glob("*.tif")))
    client.send_signal(number)
    said = client.communicate(timeout=60)[1]
    assert client.returncode == 130, said
    assert "Traceback" not in said
    assert not list(tmp_path.glob(".*.part"))
    complete(archive, tmp_path, weights, undisturbed)


def test_two_batches_at_once_share_the_work(
    archive: Path, tmp_path: Path, weights: str, undisturbed: dict[str, str]
) -> None:
    clients = [start(archive, tmp_path, weights, "--jobs", "2", "--json") for _ in range(2)]
    answers = [client.communicate(timeout=180) for client in clients]
    assert [client.returncode for client in clients] == [0, 0], answers
    assert sum(json.loads(answer[0])["done"] for answer in answers) == 4
    assert sums(tmp_path) == undisturbed


def test_a_scene_that_takes_too_long_is_given_up(archive: Path, tmp_path: Path, weights: str) -> None:
    found = batch([str(archive / "0.tif")], tmp_path, model=weights, jobs=1, timeout=1e-4, retries=1, quiet=True)
    assert found["failed"] == 1
    assert "--timeout" in found["failures"][0]["error"]
    assert not list(tmp_path.glob("*.tif"))


def test_damage_that_shows_in_the_last_strip_costs_that_scene_only(tmp_path: Path, weights: str) -> None:
    top, out = tmp_path / "in", tmp_path / "out"
    scene(top / "a.tif")
    pixels = tiny.cube(10, 64, 64).astype(np.float32)
    write_tiff(top / "b.tif", pixels, compress="deflate", blockysize=16, interleave="band")
    with tifffile.TiffFile(top / "b.tif") as tiff:
        last = tiff.pages[0].dataoffsets[-1]
    with (top / "b.tif").open("r+b") as file:
        file.seek(last)
        file.write(bytes(100))
    found = batch([str(top)], out, model=weights, jobs=1, quiet=True)
    assert (found["done"], found["failed"]) == (1, 1)
    assert "b.tif" in found["failures"][0]["error"]
    assert list(sums(out)) == ["a.tif"]


def test_a_scene_that_needs_too_much_memory_is_tried_alone_and_then_given_up(tmp_path: Path, weights: str) -> None:
    scene(tmp_path / "in" / "a.tif")
    found = batch([str(tmp_path / "in")], tmp_path / "out", model=weights, jobs=1, max_memory=0.01, quiet=True)
    assert found["failed"] == 1
    assert "--max-memory" in found["failures"][0]["error"]
    assert [r["status"] for r in records(tmp_path / "out")] == ["started", "started", "failed"]


def test_outputs_too_large_for_the_disk_fail_by_name_and_are_made_once_there_is_room(
    archive: Path, tmp_path: Path, weights: str, undisturbed: dict[str, str]
) -> None:
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY));"
    command = [sys.executable, "-c", limit + "from hsidenoise.cli import main; main()"]
    command += ["batch", str(archive), "-d", str(tmp_path), "--model", weights, "--jobs", "2", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr.count("cannot be written") == 4
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.tif"))
    complete(archive, tmp_path, weights, undisturbed)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, weights: str) -> None:
    source = scene(tmp_path / "in" / "a.tif")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="choose another folder"):
        batch([str(source)], tmp_path / "out", model=weights)


def test_clocks_that_jump_change_nothing(tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = scene(tmp_path / "in" / "a.tif")
    os.utime(source, (4e9, 4e9))  # written in 2096
    given = {"model": weights, "jobs": 1, "quiet": True}
    with monkeypatch.context() as future:
        future.setattr("time.time", lambda: 5e9)
        assert batch([str(source)], tmp_path / "out", **given)["done"] == 1
    assert batch([str(source)], tmp_path / "out", **given)["skipped"] == 1


def test_names_come_from_standard_input(tmp_path: Path, weights: str) -> None:
    names = [scene(tmp_path / "in" / name) for name in ("a.tif", "b b.tif")]
    for end in ("\n", "\0"):
        out = tmp_path / f"out{ord(end)}"
        command = [sys.executable, "-m", "hsidenoise", "batch", "-", "-d", str(out), "--model", weights, "-q", "--json"]
        text = end.join(map(str, names)) + end
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["done"] == 2


def test_events_go_to_the_log(tmp_path: Path, weights: str) -> None:
    scene(tmp_path / "in" / "a.tif")
    (tmp_path / "in" / "b.tif").write_bytes(b"II*\0")
    log = tmp_path / "log.jsonl"
    batch([str(tmp_path / "in")], tmp_path / "out", model=weights, jobs=1, quiet=True, log_file=log)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted((e["event"], Path(e["source"]).name) for e in events) == [("done", "a.tif"), ("failed", "b.tif")]


def test_after_a_failure_no_further_scene_is_begun_with_fail_fast(tmp_path: Path, weights: str) -> None:
    (tmp_path / "in").mkdir()
    for name in "abcd":
        (tmp_path / "in" / f"{name}.tif").write_bytes(b"II*\0")
    found = batch([str(tmp_path / "in")], tmp_path / "out", model=weights, jobs=1, quiet=True, fail_fast=True)
    assert (found["failed"], found["left"]) == (1, 3)

"""What goes wrong while a scene is denoised: signals, full disks, damaged inputs and weights. Never half an output."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tiny
import torch
from typer.testing import CliRunner

from hsidenoise import run as verb
from hsidenoise.cli import app
from hsidenoise.errors import HSIDenoiseError, ReadError, UsageError, WeightsError, WriteError
from hsidenoise.model import weights as weights_

ROOT = Path(__file__).parents[1]

# The command, with a network that takes its time and so leaves some to send signals in.
SLOW = """
import time
from hsidenoise import cli, engine, probe
probe.HARMFUL = float("inf")
quick = engine.Engine.patch
def patch(self, *arguments):
    time.sleep(0.25)
    return quick(self, *arguments)
engine.Engine.patch = patch
cli.main()
"""


pytestmark = pytest.mark.usefixtures("trusting")


@pytest.fixture
def scene(tmp_path):
    return tiny.geotiff(tmp_path / "scene.tif", (tiny.cube(4, 40, 240) * 10_000).astype(np.int16))


def process(script, *arguments, cwd):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], cwd=cwd, env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


def when(condition, running, seconds=60.0):
    """Wait until `condition` holds while the process is running."""
    end = time.monotonic() + seconds
    while not condition():
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def names(folder):
    return {path.name for path in folder.iterdir()}


# ---- signals


def parts(folder):
    return [name for name in names(folder) if name.endswith(".part")]


def test_an_interrupt_while_an_output_is_created_leaves_nothing(weights, tmp_path, monkeypatch):
    from hsidenoise.run import run

    create = rasterio.open

    def interrupted(path, mode="r", **options):
        made = create(path, mode, **options)
        if mode == "w":
            made.close()
            raise KeyboardInterrupt
        return made

    scene = tiny.geotiff(tmp_path / "scene.tif", (tiny.cube(4, 40, 44) * 10_000).astype(np.int16))
    monkeypatch.setattr(rasterio, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(scene, tmp_path / "out.tif", model=weights, device="cpu", quiet=True)
    assert names(tmp_path) == {"scene.tif"}


def test_signals_leave_nothing_under_the_outputs_names(weights, tmp_path):
    """Both processes at once: most of their time goes into starting."""
    pixels = (tiny.cube(4, 40, 240) * 10_000).astype(np.int16)
    term, kill = tmp_path / "term", tmp_path / "kill"
    term.mkdir()
    kill.mkdir()
    tiny.geotiff(term / "scene.tif", pixels)
    tiny.envi(kill / "scene.img", pixels, "bil")
    options = ("--model", weights, "--tile", "80")
    terminated = process(SLOW, "run", "scene.tif", "-o", "out.tif", "--residual", "removed.tif", *options, cwd=term)
    killed = process(SLOW, "run", "scene.img", "-o", "out.img", *options, cwd=kill)
    for running, folder, files, number in ((terminated, term, 2, signal.SIGTERM), (killed, kill, 1, signal.SIGKILL)):
        when(lambda folder=folder, files=files: len(parts(folder)) == files, running)
        running.send_signal(number)
    stdout, stderr = terminated.communicate(timeout=60)
    assert terminated.returncode == 130
    assert stdout == ""
    assert stderr.splitlines()[-1] == "hsidenoise: interrupted; nothing unfinished is left"
    assert "Traceback" not in stderr
    assert names(term) == {"scene.tif"}
    killed.communicate(timeout=60)
    left = names(kill) - {"scene.img", "scene.hdr"}
    assert all(name.startswith(".out.") and name.endswith(".part") for name in left)
    # What it left is in nobody's way.
    verb.run(kill / "scene.img", kill / "out.img", model=weights, quiet=True)
    assert tiny.pixels(kill / "out.img").shape == (4, 40, 240)


def test_ctrl_c_in_the_middle(scene, weights, tmp_path, monkeypatch):
    """Raised where the second tile would be denoised, when the outputs are half written."""
    from hsidenoise.engine import Engine

    quick, calls = Engine.patch, []

    def patch(self, *arguments):
        calls.append(names(tmp_path))
        if any(name.endswith(".part") for name in calls[-1]) and len(calls) > 6:
            raise KeyboardInterrupt
        return quick(self, *arguments)

    monkeypatch.setattr(Engine, "patch", patch)
    out = tmp_path / "out.tif"
    out.write_text("from last year")
    arguments = ["run", scene, "-o", out, "--model", weights, "--tile", 80, "--overwrite"]
    arguments += ["--residual", tmp_path / "removed.tif"]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 130
    assert any(name.endswith(".part") for name in calls[-1])
    assert out.read_text() == "from last year"
    assert names(tmp_path) == {"scene.tif", "out.tif"}


# ---- disks


@pytest.fixture
def small_disk():
    """Files of this process can grow to 20 kB and no further."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("output", ["out.tif", "out.img"])
@pytest.mark.filterwarnings("ignore:.*ENVI headers hold no TIFF tags:hsidenoise.errors.MetadataWarning")
def test_a_full_disk_is_one_line_and_no_output(scene, weights, tmp_path, output, small_disk):
    out = tmp_path / output
    done = CliRunner().invoke(app, ["run", str(scene), "-o", str(out), "--model", weights, "-q"])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"hsidenoise: error: {out}: cannot be written (")
    assert done.stderr.count("\n") == 1
    assert names(tmp_path) == {"scene.tif"}


def test_a_disk_without_room_is_seen_before_the_work(scene, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    monkeypatch.setattr(verb, "output_rows", lambda *a, **k: pytest.fail("the work began"))
    with pytest.raises(WriteError, match="left"):
        verb.run(scene, tmp_path / "out.tif", model=weights, quiet=True)
    assert names(tmp_path) == {"scene.tif"}


def test_a_folder_that_cannot_be_written(scene, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match="cannot be written; choose another"):
        verb.run(scene, tmp_path / "out.tif", model=weights, quiet=True)


def test_a_fault_while_reporting_leaves_the_output(scene, weights, tmp_path, monkeypatch):
    """The scene is whole by then; only the report is not there."""
    monkeypatch.setattr("hsidenoise.report.Report.to_html", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        verb.run(scene, tmp_path / "out.tif", model=weights, report=tmp_path / "r.html", quiet=True)
    assert names(tmp_path) == {"scene.tif", "out.tif"}
    assert tiny.pixels(tmp_path / "out.tif").shape == (4, 40, 240)


# ---- inputs


def damaged(tmp_path, how):
    """A scene of each kind with something wrong in it."""
    pixels = (tiny.cube(8, 40, 44) * 10_000).astype(np.int16)
    if how == "short ENVI":
        path = tiny.envi(tmp_path / "scene.img", pixels, "bsq")
        path.write_bytes(path.read_bytes()[:-100])
        return path
    compress = {} if how == "short TIFF" else {"compress": "deflate"}
    path = tiny.geotiff(tmp_path / "scene.tif", pixels, blockysize=8, **compress)
    data = bytearray(path.read_bytes())
    if how == "rotten TIFF":  # bytes in the middle of the compressed pixels
        middle = len(data) // 2
        data[middle : middle + 300] = b"\xaa" * 300
    else:
        del data[int(len(data) * 0.7) :]
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("how", ["short ENVI", "short TIFF", "short compressed TIFF", "rotten TIFF"])
def test_a_damaged_scene_is_an_error_and_no_output(weights, tmp_path, how):
    path = damaged(tmp_path, how)
    before = names(tmp_path)
    done = CliRunner().invoke(app, ["run", str(path), "-o", str(tmp_path / "out.tif"), "--model", weights, "-q"])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"hsidenoise: error: {path}")
    assert done.stderr.count("\n") == 1
    assert names(tmp_path) == before


def test_a_scene_that_vanishes_halfway(scene, weights, tmp_path, monkeypatch):
    """A network drive that goes away: reading fails between two tiles."""
    from dataclasses import replace

    from hsidenoise import io

    whole = io.open_cube

    def open_cube(*arguments, **options):
        cube = whole(*arguments, **options)
        reads = []

        def read(window, bands):
            reads.append(window)
            if any(name.endswith(".part") for name in names(tmp_path)) and window.col_start > 60:
                raise ReadError("scene.tif: gone")
            return cube.read_raw(window, bands)

        return replace(cube, read_raw=read)

    monkeypatch.setattr(io, "open_cube", open_cube)
    with pytest.raises(ReadError, match="gone"):
        verb.run(scene, tmp_path / "out.tif", model=weights, tile=80, quiet=True)
    assert names(tmp_path) == {"scene.tif"}


def test_the_input_is_never_touched(weights, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    tiny.geotiff(folder / "scene.tif", (tiny.cube(3) * 10_000).astype(np.int16), nodata=0)
    tiny.envi(folder / "scene.img", tiny.cube(3).astype(np.float32), "bip")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    for name, out in (("scene.tif", "a.tif"), ("scene.img", "b.img"), ("scene.hdr", "c.tif")):
        report = {"report": tmp_path / "r.html"} if name == "scene.tif" else {}
        verb.run(
            folder / name, tmp_path / out, model=weights, quiet=True, residual=tmp_path / f"removed_{out}", **report
        )
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before


# ---- weights


def rewritten(path, header=None, card=None):
    """The same safetensors file with another header, or another card in it."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    found = json.loads(raw[8 : 8 + length])
    if card is not None:
        found["__metadata__"]["hsidenoise"] = json.dumps(json.loads(found["__metadata__"]["hsidenoise"]) | card)
    text = json.dumps(found if header is None else header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


class Nasty:
    """Unpickled, it would make a folder."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def spoil(path, how):
    raw = path.read_bytes()
    match how:
        case "empty":
            path.write_bytes(b"")
        case "short":
            path.write_bytes(raw[:-500])
        case "cut in the header":
            path.write_bytes(raw[:200])
        case "header length bomb":
            path.write_bytes(struct.pack("<Q", 2**62) + raw[8:])
        case "pickle":
            path.write_bytes(pickle.dumps(Nasty()) + b"\0" * 100)
        case "torch file":
            torch.save({"weight": torch.zeros(3)}, path)
        case "no card":
            rewritten(path, header={"__metadata__": {}})
        case "a list":
            rewritten(path, header=[])
        case "another network":
            rewritten(path, card={"config": {"shared": 24}})
        case "unknown settings":
            rewritten(path, card={"config": {"colour": "blue"}})
        case "unknown card":
            rewritten(path, card={"colour": "blue"})


@pytest.mark.parametrize(
    "how",
    ["empty", "short", "cut in the header", "header length bomb", "pickle", "torch file", "no card", "a list",
     "another network", "unknown settings", "unknown card"],
)  # fmt: skip
def test_damaged_weights_are_refused_in_one_line(scene, tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    file = tiny.weights(tmp_path / "bad.safetensors")
    spoil(file, how)
    before = names(tmp_path)
    done = CliRunner().invoke(app, ["run", str(scene), "-o", "out.tif", "--model", str(file)])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"hsidenoise: error: {file}: ")
    assert done.stderr.count("\n") == 1
    assert names(tmp_path) == before


def test_shipped_weights_are_checked_against_their_sha256(scene, tmp_path, monkeypatch):
    folder = tmp_path / "shipped"
    folder.mkdir()
    file = tiny.weights(folder / "compact.safetensors")
    index = folder / "index.toml"
    index.write_text(f'[compact]\nfile = "compact.safetensors"\nsha256 = "{weights_.digest(file)}"\n')
    monkeypatch.setattr(weights_, "folder", lambda: folder)
    record = verb.run(scene, tmp_path / "out.tif", quiet=True, model="compact")
    assert record["model"]["sha256"] == weights_.digest(file)
    with rasterio.open(tmp_path / "out.tif") as out:
        assert out.tags(ns="HSIDENOISE")["model"] == f"compact sha256:{weights_.digest(file)[:12]}"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    run = ["run", str(scene), "-o", str(tmp_path / "b.tif"), "--model", "compact"]
    for arguments in (run, ["models"]):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 1
        assert "sha256" in done.stderr
        assert done.stderr.count("\n") == 1
    file.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        verb.run(scene, tmp_path / "b.tif", quiet=True, model="compact")
    assert not (tmp_path / "b.tif").exists()


def test_errors_have_one_root_and_their_exit_codes():
    for error, code in ((ReadError, 1), (WriteError, 1), (WeightsError, 1), (UsageError, 2)):
        assert issubclass(error, HSIDenoiseError)
        assert error.exit_code == code

"""Batches on a Dask cluster: the same bytes as on one machine, and no lost worker loses a scene."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from scenes import write_tiff
from test_batch import sums, until

pytest.importorskip("distributed")

SCENES = 4


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("archive")
    for i in range(SCENES):
        write_tiff(top / f"{i}.tif", tiny.cube(24, 160, 160, seed=i).astype(np.float32))
    return top


def batch(archive: Path, out: Path, weights: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hsidenoise", "batch", str(archive), "-d", str(out), "--model", weights]
    one = {"SOURCE_DATE_EPOCH": "1700000000", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--json", "--quiet", *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | one,
    )  # fmt: skip


def answer(client: subprocess.Popen[str]) -> dict[str, Any]:
    said, error = client.communicate(timeout=180)
    assert client.returncode == 0, error
    found: dict[str, Any] = json.loads(said)
    return found


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one scene with stripes, invalid pixels and bands that are left alone."""
    pixels = (tiny.cube(24, 240, 170) * 10_000).astype(np.int16)
    pixels[5, :, 40] += 900
    pixels[:, 30:50, 60:90] = -1
    pixels[7] = 12
    top = tmp_path_factory.mktemp("large")
    tiny.geotiff(top / "scene.tif", pixels, bad=(3,), nodata=-1)
    return top


@pytest.fixture(scope="module")
def expected(archive: Path, tmp_path_factory: pytest.TempPathFactory, weights: str) -> dict[str, str]:
    out = tmp_path_factory.mktemp("one-machine")
    jobs = str(len(os.sched_getaffinity(0)))  # a thread for each
    assert answer(batch(archive, out, weights, "--jobs", jobs))["done"] == SCENES
    return sums(out)


def dask(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture
def cluster() -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """The address of a scheduler, and its process followed by those of two workers."""
    with running("tcp") as found:
        yield found


@pytest.fixture(scope="module")
def lasting() -> Iterator[str]:
    """The address of a scheduler whose two workers serve several tests, so that they start but once."""
    with running("tcp") as (address, _):
        yield address


@contextlib.contextmanager
def running(protocol: str) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"{protocol}://127.0.0.1:{port}"
    where = ["--host", "127.0.0.1", "--port", str(port), "--protocol", protocol]
    started = [dask("dask_scheduler", *where, "--no-dashboard")]
    until(lambda: _listens(port))
    single = ["--nworkers", "1", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    started += [dask("dask_worker", address, *single) for _ in range(2)]
    try:
        yield address, started
    finally:
        for process in reversed(started):  # a worker without its scheduler takes its time to leave by itself
            process.kill()
            process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_local_cluster_gives_the_same_bytes(
    archive: Path, tmp_path: Path, weights: str, expected: dict[str, str]
) -> None:
    found = answer(batch(archive, tmp_path, weights, "--scheduler", "local", "--jobs", "2"))
    assert found["done"] == SCENES
    assert sums(tmp_path) == expected
    assert answer(batch(archive, tmp_path, weights, "--scheduler", "local", "--jobs", "2"))["skipped"] == SCENES


def test_a_worker_that_dies_takes_no_scene_with_it(
    archive: Path, tmp_path: Path, weights: str, expected: dict[str, str], cluster: Any
) -> None:
    address, processes = cluster
    client = batch(archive, tmp_path, weights, "--scheduler", address)
    until(lambda: (tmp_path / ".hsidenoise" / "manifest.jsonl").exists())
    time.sleep(0.5)
    processes[1].send_signal(signal.SIGKILL)
    assert answer(client)["done"] == SCENES
    assert sums(tmp_path) == expected


def test_a_scheduler_that_goes_away_is_one_line_and_the_batch_goes_on_later(
    archive: Path, tmp_path: Path, weights: str, expected: dict[str, str], cluster: Any
) -> None:
    address, processes = cluster
    client = batch(archive, tmp_path, weights, "--scheduler", address)
    until(lambda: any(tmp_path.glob("*.tif")))
    processes[0].send_signal(signal.SIGKILL)
    _, error = client.communicate(timeout=120)
    assert client.returncode == 1, error
    assert "scheduler went away" in error, error
    assert "Traceback" not in error
    for process in processes[1:]:
        process.terminate()
        process.wait(30)
    assert answer(batch(archive, tmp_path, weights, "--jobs", str(len(os.sched_getaffinity(0)))))["failed"] == 0
    assert sums(tmp_path) == expected


def test_no_scheduler_is_one_line(archive: Path, tmp_path: Path, weights: str) -> None:
    client = batch(archive, tmp_path, weights, "--scheduler", "nonsense://x")
    _, error = client.communicate(timeout=60)
    assert client.returncode == 2, error
    assert "no scheduler answers" in error
    assert error.count("\n") == 1, error


def test_what_the_cluster_decides_cannot_be_asked_for(archive: Path, tmp_path: Path, weights: str) -> None:
    client = batch(archive, tmp_path, weights, "--scheduler", "local", "--max-memory", "5")
    _, error = client.communicate(timeout=60)
    assert client.returncode == 2
    assert "--max-memory" in error


def test_workers_leave_off_when_the_client_is_gone(large: Path, tmp_path: Path, weights: str, lasting: str) -> None:
    client = batch(large, tmp_path, weights, "--scheduler", lasting, "--tile", "80", "--shifts", "4")
    until(lambda: any(tmp_path.glob(".scene.tif.*.part")))
    client.kill()
    client.communicate(timeout=60)
    until(lambda: not any(tmp_path.glob(".scene.tif.*.part")))
    assert not (tmp_path / "scene.tif").exists()


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
def test_over_tls_only_who_has_a_certificate_is_let_in(
    archive: Path, tmp_path: Path, weights: str, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands are those of docs/batch.md."""
    new = ("req", "-newkey", "rsa:2048", "-nodes")
    openssl(tmp_path, *new, "-x509", "-days", "2", "-subj", "/CN=archive", "-keyout", "ca-key.pem", "-out", "ca.pem")
    openssl(tmp_path, *new, "-subj", "/CN=dask", "-keyout", "key.pem", "-out", "dask.csr")
    signed = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2")
    openssl(tmp_path, "x509", "-req", "-in", "dask.csr", *signed, "-out", "cert.pem")
    tls: dict[str, Any] = {"ca-file": str(tmp_path / "ca.pem")}
    for who in ("scheduler", "worker", "client"):
        tls[who] = {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    config = tmp_path / "dask.yaml"
    config.write_text(json.dumps({"distributed": {"comm": {"require-encryption": True, "tls": tls}}}))  # YAML too
    with monkeypatch.context() as with_certificate:
        with_certificate.setenv("DASK_CONFIG", str(config))
        with running("tls") as (address, _):
            out = tmp_path / "out"
            assert answer(batch(archive, out, weights, "--scheduler", address))["done"] == SCENES
            assert sums(out) == expected
            openssl(tmp_path, *new, "-x509", "-days", "2", "-subj", "/CN=x", "-keyout", "key.pem", "-out", "cert.pem")
            for setting, url in ((config, address), (tmp_path / "none", address), (config, "tcp" + address[3:])):
                with_certificate.setenv("DASK_CONFIG", str(setting))
                client = batch(archive, tmp_path / "none", weights, "--scheduler", url)
                _, error = client.communicate(timeout=60)
                assert client.returncode == 2, error
                assert error.count("\n") == 1, error
                assert "no scheduler answers" in error


# One scene, several workers. Tiles of 80 pixels make four rows of them; each is a few strips.

CUT = ("--split", "0.000001", "--tile", "80")


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / ".hsidenoise" / "manifest.jsonl").read_text().splitlines()]


def strips(out: Path) -> list[Path]:
    return list(out.glob(".*.part/*.json"))


def one(large: Path, out: Path, model: str) -> dict[str, str]:
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000", "OMP_NUM_THREADS": "1"}
    command = ["run", str(large / "scene.tif"), "-o", str(out / "scene.tif"), "--model", model, "--tile", "80", "-q"]
    subprocess.run([sys.executable, "-m", "hsidenoise", *command], env=environment, check=True)
    return sums(out)


@pytest.fixture(scope="module")
def undivided(large: Path, tmp_path_factory: pytest.TempPathFactory, weights: str) -> dict[str, str]:
    return one(large, tmp_path_factory.mktemp("undivided"), weights)


def test_a_scene_in_strips_is_that_of_one_process(
    large: Path, tmp_path: Path, weights: str, undivided: dict[str, str], lasting: str
) -> None:
    assert answer(batch(large, tmp_path, weights, "--scheduler", lasting, *CUT))["done"] == 1
    assert sums(tmp_path) == undivided
    (done,) = [r for r in records(tmp_path) if r["status"] == "done"]
    assert done["strips"] > 1
    assert done["tiles"] > 6
    assert "measured" in done
    assert not list(tmp_path.glob(".scene*"))


def test_the_same_with_eigen_images(large: Path, tmp_path: Path, lasting: str) -> None:
    expected = one(large, tmp_path, "dct")
    out = tmp_path / "out"
    found = answer(batch(large, out, "dct", "--scheduler", lasting, *CUT, "--reports"))
    assert found["done"] == 1
    assert records(out)[-1]["strips"] > 1
    assert sums(out)["scene.tif"] == expected["scene.tif"]
    assert (out / "scene.tif.html").stat().st_size > 10_000


def test_a_terminal_shows_how_far_workers_are(large: Path, tmp_path: Path, weights: str) -> None:
    command = [sys.executable, "-m", "hsidenoise", "batch", str(large), "-d", str(tmp_path), "--model", weights]
    ours, theirs = pty.openpty()
    client = subprocess.Popen(
        [*command, "--scheduler", "local", "--jobs", "2", *CUT], stdout=theirs, stderr=theirs,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert client.wait(60) == 0, shown
    shares = {int(n) for n in re.findall(rb"  scene\.tif [^%]*?(\d+)%", shown)}
    assert 0 in shares
    assert len(shares - {0, 100}) > 1, shares


def test_a_worker_that_dies_in_a_strip_takes_no_scene_with_it(
    large: Path, tmp_path: Path, weights: str, undivided: dict[str, str], cluster: Any
) -> None:
    address, processes = cluster
    client = batch(large, tmp_path, weights, "--scheduler", address, *CUT)
    until(lambda: len(strips(tmp_path)) > 1)
    processes[1].send_signal(signal.SIGKILL)
    assert answer(client)["done"] == 1
    assert sums(tmp_path) == undivided


def test_a_client_that_dies_leaves_what_the_next_one_clears(
    large: Path, tmp_path: Path, weights: str, undivided: dict[str, str], lasting: str
) -> None:
    client = batch(large, tmp_path, weights, "--scheduler", lasting, *CUT)
    until(lambda: len(strips(tmp_path)) > 1)
    client.kill()
    client.communicate(timeout=60)
    assert not (tmp_path / "scene.tif").exists()
    assert answer(batch(large, tmp_path, weights, "--scheduler", lasting, *CUT))["done"] == 1
    assert sums(tmp_path) == undivided


def test_an_interrupt_leaves_no_strips(large: Path, tmp_path: Path, weights: str, lasting: str) -> None:
    client = batch(large, tmp_path, weights, "--scheduler", lasting, *CUT)
    until(lambda: len(strips(tmp_path)) > 1)
    client.send_signal(signal.SIGINT)
    _, error = client.communicate(timeout=60)
    assert client.returncode == 130, error
    assert {p.name for p in tmp_path.iterdir()} == {".hsidenoise"}


def test_strips_of_a_scene_that_takes_too_long_are_given_up(
    large: Path, tmp_path: Path, weights: str, lasting: str
) -> None:
    more = ("--timeout", "0.01", "--retries", "1", "--shifts", "4", *CUT)
    client = batch(large, tmp_path, weights, "--scheduler", lasting, *more)
    said, error = client.communicate(timeout=120)
    assert client.returncode == 1, error
    assert json.loads(said)["failed"] == 1
    assert "--timeout" in json.loads(said)["failures"][0]["error"]
    assert sum(r["status"] == "started" for r in records(tmp_path)) == 2
    assert not list(tmp_path.glob(".scene*"))


def test_a_broken_scene_in_strips_fails_as_any_other(tmp_path: Path, weights: str, lasting: str) -> None:
    top = tmp_path / "in"
    top.mkdir()
    path = tiny.geotiff(top / "scene.tif", (tiny.cube(24, 240, 170) * 10_000).astype(np.int16))
    os.truncate(path, path.stat().st_size * 9 // 10)
    client = batch(top, tmp_path / "out", weights, "--scheduler", lasting, *CUT)
    said, _ = client.communicate(timeout=120)
    assert client.returncode == 1
    assert "scene.tif" in json.loads(said)["failures"][0]["error"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {".hsidenoise", "batch-report.html"}

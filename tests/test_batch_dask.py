"""Batches on a Dask cluster: the same bytes as on one machine, and no lost worker loses a scene."""

from __future__ import annotations

import json
import os
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    started = [dask("dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")]
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
    client = batch(archive, tmp_path, weights, "--scheduler", "local", "--timeout", "5")
    _, error = client.communicate(timeout=60)
    assert client.returncode == 2
    assert "--timeout" in error

"""Batches under fire: workers and clients are killed at random moments, for as long as asked.

    python benchmarks/soak.py FOLDER [--minutes 20] [--scenes 8] [--jobs 2] [--seed 0]

Each round starts a batch of generated scenes, kills (SIGKILL) one of its workers or the client after a random time, and
lets a second batch finish. A round is survived if every output that was there after the kill was complete and equal to
that of an undisturbed run, the manifest could be read, and the second batch did just what was missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rasterio


def make(folder: Path, count: int) -> None:
    """Noisy scenes of 96 x 96 pixels and 24 bands."""
    folder.mkdir(parents=True, exist_ok=True)
    row, col = np.mgrid[:96, :96] / 96
    for i in range(count):
        rng = np.random.default_rng(i)
        maps = np.stack([np.sin(3 + i * row), np.cos(5 * col), row * col])
        cube = np.einsum("bm,mij->bij", rng.random((24, 3)), maps) + 0.05 * rng.standard_normal((24, 96, 96))
        profile = {"driver": "GTiff", "width": 96, "height": 96, "count": 24, "dtype": "float32", "crs": "EPSG:32633"}
        profile["transform"] = rasterio.Affine(30, 0, 5e5, 0, -30, 4e6)
        with rasterio.open(folder / f"{i}.tif", "w", **profile) as out:
            out.write(cube.astype(np.float32))


def start(scenes: Path, out: Path, jobs: int) -> subprocess.Popen[str]:
    """A batch with its answer as JSON."""
    command = [sys.executable, "-m", "hsidenoise", "batch", str(scenes), "-d", str(out), "--jobs", str(jobs)]
    return subprocess.Popen(
        [*command, "--quick", "--quiet", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"},
    )  # fmt: skip


def workers(client: int) -> list[int]:
    """Process ids of a client's workers."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == client and b"hsidenoise.batch.process" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


def sums(out: Path) -> dict[str, str]:
    """Digest of each output."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.glob("*.tif"))}


def done(out: Path) -> set[str]:
    """Outputs whose last line in the manifest says so; a broken last line is allowed, no other."""
    manifest = out / ".hsidenoise" / "manifest.jsonl"
    lines = manifest.read_bytes().split(b"\n") if manifest.exists() else [b""]
    latest = {}
    for line in lines[:-1]:
        if line:
            record = json.loads(line)
            latest[record["output"]] = record["status"]
    return {output for output, status in latest.items() if status == "done"}


def one(
    scenes: Path, out: Path, jobs: int, truth: dict[str, str], rng: random.Random, length: float
) -> tuple[str, str]:
    """One round: who was killed, and what went wrong (nothing, if all is well)."""
    shutil.rmtree(out, ignore_errors=True)
    client = start(scenes, out, jobs)
    time.sleep(rng.uniform(0, length))
    victims = workers(client.pid)
    whom = "worker" if victims and rng.random() < 0.5 else "client"
    if client.poll() is None:
        try:
            os.kill(rng.choice(victims) if whom == "worker" else client.pid, signal.SIGKILL)
        except ProcessLookupError:
            whom = "nobody"
    _, error = client.communicate()
    if whom != "client" and client.returncode:
        return whom, f"exit code {client.returncode}: {error}"
    while any(Path(f"/proc/{pid}").exists() for pid in victims):
        time.sleep(0.05)
    there = sums(out)
    if any(truth.get(name) != digest for name, digest in there.items()):
        return whom, "an output is not complete"
    before = done(out)
    second = start(scenes, out, jobs)
    answer, error = second.communicate()
    if second.returncode:
        return whom, f"second batch: exit code {second.returncode}: {error}{answer}"
    if json.loads(answer)["skipped"] != len(before):
        return whom, f"second batch skipped {json.loads(answer)['skipped']}, done were {len(before)}"
    left = [p.name for p in out.iterdir() if p.name.endswith(".part")]
    return whom, "" if sums(out) == truth and not left else f"in the end something differs ({left})"


def main() -> None:
    """Parse, soak, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    scenes, out = given.folder / "scenes", given.folder / "out"
    make(scenes, given.scenes)
    shutil.rmtree(out, ignore_errors=True)
    began = time.monotonic()
    client = start(scenes, out, given.jobs)
    _, error = client.communicate()
    if client.returncode:
        sys.exit(error)
    length, truth = time.monotonic() - began, sums(out)
    print(f"undisturbed: {len(truth)} scenes in {length:.1f} s", flush=True)
    rng, tried, survived = random.Random(given.seed), 0, 0
    while time.monotonic() - began < 60 * given.minutes:
        whom, wrong = one(scenes, out, given.jobs, truth, rng, length)
        tried += whom != "nobody"
        survived += whom != "nobody" and not wrong
        print(f"{tried}: {whom} killed: {wrong or 'survived'}", flush=True)
    print(f"survived {survived} of {tried}")
    sys.exit(survived != tried)


if __name__ == "__main__":
    main()
